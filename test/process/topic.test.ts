// Goal: what is published once arrives everywhere, whole, in order and with its number; late ones get
// what is kept; whoever is behind gets what its policy says, and every gap is counted.
import assert from 'node:assert/strict';
import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  merge,
  openTopic,
  type SubscribeOptions,
  type Subscription,
  subscribe,
  type Topic,
  type TopicMessage,
  type TopicOptions,
} from '../../src/patterns/topic/index.js';
import { ACTOR_IS_READABLE, codeOf, uniqueName, until } from './actors.js';
import { folderFor, isPending } from './local.js';
import { isPattern, pattern } from './pattern.js';
import { startTopicActor, startTopicActors } from './topic-actors.js';

const OPTIONS = { timeout: 30_000 };
/** A user that is not the one of this process, and not the one that stands for nobody. */
const STRANGER = 12345;
/** One message that is copied into each ring, and one that lies in the shared memory. */
const SMALL = 100;
const LARGE = 20_000;

/** A topic of this process; closed at the end of the test. */
async function topicFor(
  context: TestContext,
  options?: TopicOptions,
  name: string = uniqueName('topic'),
): Promise<Topic> {
  const topic = await openTopic(name, options);
  context.after(() => topic.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return topic;
}

async function subscriptionFor(
  context: TestContext,
  name: string,
  options?: SubscribeOptions,
): Promise<Subscription> {
  const subscription = await subscribe(name, options);
  context.after(() => subscription.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return subscription;
}

async function publish(topic: Topic, lengthBytes: number, count: number = 1): Promise<void> {
  for (let i = 0; i < count; i++) await topic.publish(pattern(lengthBytes, topic.sequence));
}

/** Reads to the end. */
async function takeAll(subscription: Subscription): Promise<[number, number][]> {
  const seen: [number, number][] = [];
  while (await subscription.readable()) seen.push(...take(subscription));
  return seen;
}

/** The numbers of those that wait now, each whole; what was missed before each. */
function take(subscription: Subscription): [sequence: number, missed: number][] {
  const seen: [number, number][] = [];
  subscription.drain((message) => {
    const { sequence, missed, bytes } = message;
    assert.ok(isPattern(bytes, sequence), `message ${sequence} is whole`);
    seen.push([sequence, missed]);
  });
  return seen;
}

/** As `take`, until there are so many. */
async function takeMany(subscription: Subscription, count: number): Promise<[number, number][]> {
  const seen: [number, number][] = [];
  while (seen.length < count && (await subscription.readable())) seen.push(...take(subscription));
  return seen;
}

async function hold(subscription: Subscription, count: number): Promise<TopicMessage[]> {
  const messages: TopicMessage[] = [];
  for await (const message of subscription) {
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

function numbers(from: number, count: number): [number, number][] {
  return Array.from({ length: count }, (_, i) => [(from + i) >>> 0, 0]);
}

describe('a topic', () => {
  it(
    'reaches subscribers in other processes, in order, and has its memory back',
    OPTIONS,
    async (t) => {
      const [publisher, ...subscribers] = await startTopicActors(t, 4);
      if (publisher === undefined) throw new Error('no publisher');
      const name = uniqueName('reach');
      await publisher.call('openTopic', name, { mayBlock: true });
      await Promise.all(
        subscribers.map((one) => one.call('subscribe', name, 's', { slow: 'block', depth: 16 })),
      );
      const heard = subscribers.map((one) => one.call('receiveAll', 's'));
      const free = (await publisher.call('topicStats', name)).freeBytes;
      let next = 0;
      for (const lengthBytes of [0, 1, SMALL, 1000, 8192, 8193, LARGE, 300_000, 1_000_000]) {
        next = await publisher.call('publish', name, lengthBytes, 50);
      }
      await until('everything came back', async () => {
        await publisher.call('subscribers', name);
        return (await publisher.call('topicStats', name)).freeBytes === free;
      });
      await publisher.call('closeTopic', name);
      for (const { count, missed, right, last, code } of await Promise.all(heard)) {
        assert.deepEqual(
          { count, missed, right, last, code },
          { count: next, missed: 0, right: true, last: next - 1, code: 'end' },
        );
      }
    },
  );

  it('works where nobody subscribes, and counts on', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    await publish(topic, SMALL, 3);
    await publish(topic, LARGE, 3);
    const subscription = await subscriptionFor(t, topic.name);
    await publish(topic, SMALL);
    assert.deepEqual(await takeMany(subscription, 1), [[6, 0]]);
    assert.equal(subscription.missed, 0);
  });

  for (const lengthBytes of [SMALL, LARGE]) {
    it(`counts over 2^32: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t, { firstSequence: 0xfffffffd, keep: 2 });
      const subscription = await subscriptionFor(t, topic.name, { slow: 'drop-newest', depth: 4 });
      await publish(topic, lengthBytes, 6);
      const late = await subscriptionFor(t, topic.name);
      assert.deepEqual(take(subscription), numbers(0xfffffffd, 4));
      await publish(topic, lengthBytes);
      assert.deepEqual(await takeMany(subscription, 1), [[3, 2]]);
      assert.deepEqual(await takeMany(late, 3), numbers(1, 3));
      assert.deepEqual([subscription.missed, late.missed], [2, 0]);
    });
  }

  it('writes in place what is lent', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const { freeBytes } = topic.stats();
    const one = await subscriptionFor(t, topic.name);
    const two = await subscriptionFor(t, topic.name);
    for (const lengthBytes of [0, SMALL, LARGE]) {
      const loan = await topic.loan(lengthBytes);
      assert.equal(loan.bytes.length, lengthBytes);
      loan.bytes.set(pattern(lengthBytes, topic.sequence));
      await loan.publish();
      assert.equal(await codeOf(loan.publish()), 'ERR_UKSHM_LOAN_USED');
      const shorter = topic.tryLoan(lengthBytes + 50);
      shorter?.bytes.set(pattern(lengthBytes, topic.sequence));
      assert.equal(shorter?.tryPublish({ lengthBytes }), true);
      const [discarded] = [topic.tryLoan(lengthBytes)];
      discarded?.discard();
      discarded?.discard();
      assert.throws(() => discarded?.tryPublish(), /discarded/);
    }
    assert.deepEqual(await takeMany(one, 6), numbers(0, 6));
    assert.deepEqual(await takeMany(two, 6), numbers(0, 6));
    void topic.subscribers;
    assert.equal(topic.stats().freeBytes, freeBytes);
    const loan = await topic.loan(10);
    assert.equal(await codeOf(loan.publish({ lengthBytes: 11 })), 'ERR_UKSHM_INVALID_ARGUMENT');
  });

  it('refuses what is too long, and everything once it is closed', OPTIONS, async (t) => {
    const topic = await topicFor(t, { arenaBytes: 1048576 });
    assert.equal(topic.messageBytesMax, 262144);
    const tooLong = new Uint8Array(topic.messageBytesMax + 1);
    assert.equal(await codeOf(topic.publish(tooLong)), 'ERR_UKSHM_MESSAGE_TOO_LONG');
    assert.equal(await codeOf(topic.loan(-1)), 'ERR_UKSHM_INVALID_ARGUMENT');
    const other = await codeOf(openTopic(topic.name));
    assert.equal(other, 'ERR_UKSHM_NAME_IN_USE');
    await topic.close();
    await topic.close();
    assert.equal(await codeOf(topic.publish(new Uint8Array(1))), 'ERR_UKSHM_CLOSED');
    assert.throws(() => topic.tryPublish(new Uint8Array(1)), /is closed/);
    assert.equal(await codeOf(subscribe(topic.name)), 'ERR_UKSHM_NO_LISTENER');
    const again = await topicFor(t, {}, topic.name);
    assert.equal(again.sequence, 0);
  });

  it('is closed by its signal', OPTIONS, async (t) => {
    const controller = new AbortController();
    const topic = await topicFor(t, { signal: controller.signal });
    const subscription = await subscriptionFor(t, topic.name);
    controller.abort();
    assert.equal((await subscription.closed).reason, 'peer-closed');
    assert.equal(await codeOf(topic.publish(new Uint8Array(1))), 'ERR_UKSHM_CLOSED');
    assert.equal(await codeOf(openTopic('never', { signal: controller.signal })), 'AbortError');
  });

  it('delivers what waits when it is closed', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const subscription = await subscriptionFor(t, topic.name, { depth: 2 });
    await publish(topic, SMALL, 3);
    await publish(topic, LARGE, 1);
    const closing = topic.close();
    assert.deepEqual(await takeAll(subscription), numbers(0, 4));
    await closing;
    assert.equal(subscription.missed, 0);
  });

  it('tells even of what was lost last', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const subscription = await subscriptionFor(t, topic.name, { slow: 'drop-newest', depth: 2 });
    await publish(topic, SMALL, 5);
    const closing = topic.close();
    assert.deepEqual(await takeAll(subscription), numbers(0, 2));
    assert.equal(subscription.missed, 3);
    await closing;
  });
});

describe('late subscribers', () => {
  it('get the last messages that are kept, then what follows', OPTIONS, async (t) => {
    const topic = await topicFor(t, { keep: 3 });
    const early = await subscriptionFor(t, topic.name);
    assert.equal(early.kept, 0);
    await publish(topic, SMALL, 2);
    await publish(topic, LARGE, 2);
    const late = await subscriptionFor(t, topic.name);
    assert.equal(late.kept, 3);
    assert.equal(topic.stats().kept, 3);
    await publish(topic, SMALL, 1);
    assert.deepEqual(await takeMany(late, 4), numbers(1, 4));
    assert.deepEqual(await takeMany(early, 5), numbers(0, 5));
    const shallow = await subscriptionFor(t, topic.name, { depth: 1 });
    assert.equal(shallow.kept, 1);
    assert.deepEqual(await takeMany(shallow, 1), [[4, 0]]);
  });

  it('get fewer where these take too much memory', OPTIONS, async (t) => {
    const topic = await topicFor(t, { keep: 100, arenaBytes: 1048576 });
    await publish(topic, 100_000, 20);
    const late = await subscriptionFor(t, topic.name);
    assert.ok(late.kept >= 1 && late.kept * 100_000 <= 262144, `${late.kept} were kept`);
    assert.deepEqual(await takeMany(late, late.kept), numbers(20 - late.kept, late.kept));
  });

  it('get them from another process', OPTIONS, async (t) => {
    const [publisher, subscriber] = await startTopicActors(t, 2);
    const name = uniqueName('kept');
    await publisher?.call('openTopic', name, { keep: 5 });
    await publisher?.call('publish', name, LARGE, 9);
    assert.equal(await subscriber?.call('subscribe', name, 's'), 5);
    const told = await subscriber?.call('receive', 's', 5);
    assert.deepEqual(
      told?.map(({ sequence, right }) => [sequence, right]),
      [4, 5, 6, 7, 8].map((sequence) => [sequence, true]),
    );
  });
});

describe('a subscriber that is behind', () => {
  for (const lengthBytes of [SMALL, LARGE]) {
    it(`loses the newest: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t);
      const slow = await subscriptionFor(t, topic.name, { slow: 'drop-newest', depth: 3 });
      const other = await subscriptionFor(t, topic.name);
      const [held] = await Promise.all([hold(slow, 2), publish(topic, lengthBytes, 7)]);
      assert.deepEqual(await takeMany(other, 7), numbers(0, 7));
      held[0]?.release();
      // One is free again: what comes now is taken, and the next tells of the gap.
      await publish(topic, lengthBytes, 2);
      held[1]?.release();
      assert.deepEqual(await takeMany(slow, 2), [
        [2, 0],
        [7, 4],
      ]);
      await publish(topic, lengthBytes, 1);
      assert.deepEqual(await takeMany(slow, 1), [[9, 1]]);
      const [stats] = topic.subscribers;
      assert.deepEqual([stats?.dropped, stats?.sent, slow.missed], [5, 5, 5]);
    });

    it(
      `loses the oldest that it has not begun to read: ${lengthBytes} bytes`,
      OPTIONS,
      async (t) => {
        const topic = await topicFor(t);
        const slow = await subscriptionFor(t, topic.name, { slow: 'drop-oldest', depth: 3 });
        await publish(topic, lengthBytes, 20);
        const [before] = topic.subscribers;
        assert.deepEqual([before?.outstanding, before?.queued, before?.dropped], [3, 3, 14]);
        const seen = await takeMany(slow, 6);
        assert.deepEqual(seen, [...numbers(0, 3), [17, 14], [18, 0], [19, 0]]);
        await publish(topic, lengthBytes, 1);
        assert.deepEqual(await takeMany(slow, 1), [[20, 0]]);
      },
    );

    it(`is disconnected behind what it was sent: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t);
      const { freeBytes } = topic.stats();
      const slow = await subscriptionFor(t, topic.name, { slow: 'disconnect', depth: 3 });
      const other = await subscriptionFor(t, topic.name);
      await publish(topic, lengthBytes, 5);
      assert.equal(topic.subscribers.length, 1);
      const seen: number[] = [];
      const reading = (async () => {
        for await (const message of slow) {
          assert.ok(isPattern(message.bytes, message.sequence));
          seen.push(message.sequence);
          message.release();
        }
      })();
      assert.equal(await codeOf(reading), 'ERR_UKSHM_TOO_SLOW');
      assert.deepEqual(seen, [0, 1, 2]);
      assert.equal(slow.missed, 1, 'the one for which it was too slow');
      assert.equal(await codeOf(slow.readable()), 'ERR_UKSHM_TOO_SLOW');
      assert.equal((await slow.closed).reason, 'peer-closed');
      assert.deepEqual(await takeMany(other, 5), numbers(0, 5));
      void topic.subscribers;
      assert.equal(topic.stats().freeBytes, freeBytes);
    });

    it(`blocks where that is allowed: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t, { mayBlock: true });
      const slow = await subscriptionFor(t, topic.name, { slow: 'block', depth: 3 });
      const other = await subscriptionFor(t, topic.name, { slow: 'drop-newest' });
      await publish(topic, lengthBytes, 3);
      assert.equal(topic.tryPublish(pattern(lengthBytes, 3)), false);
      const signal = AbortSignal.timeout(30);
      assert.equal(
        await codeOf(topic.publish(pattern(lengthBytes, 3), { signal })),
        'TimeoutError',
      );
      assert.equal(topic.sequence, 3);
      const loan = await topic.loan(lengthBytes);
      loan.bytes.set(pattern(lengthBytes, 3));
      assert.equal(loan.tryPublish(), false);
      const waiting = loan.publish();
      const behind = topic.publish(pattern(lengthBytes, 4));
      assert.ok(await isPending(waiting));
      assert.equal(topic.stats().waiting, 2);
      assert.deepEqual(take(other), numbers(0, 3), 'nobody is sent what blocks');
      assert.deepEqual(take(slow), numbers(0, 3));
      await Promise.all([waiting, behind]);
      assert.deepEqual(await takeMany(slow, 2), numbers(3, 2));
      assert.deepEqual(await takeMany(other, 2), numbers(3, 2));
      // Whoever blocks and goes, blocks no more.
      await publish(topic, lengthBytes, 3);
      const last = publish(topic, lengthBytes);
      assert.ok(await isPending(last));
      await slow.close();
      await last;
    });
  }

  it('may not block where nobody said so', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    assert.equal(await codeOf(subscribe(topic.name, { slow: 'block' })), 'ERR_UKSHM_MAY_NOT_BLOCK');
    const wrong = { slow: 'sometimes' } as unknown as SubscribeOptions;
    assert.equal(await codeOf(subscribe(topic.name, wrong)), 'ERR_UKSHM_INVALID_ARGUMENT');
    assert.equal(await codeOf(subscribe(topic.name, { depth: 0 })), 'ERR_UKSHM_INVALID_ARGUMENT');
    assert.equal(topic.subscribers.length, 0);
  });

  it('keeps order where small and large ones wait together', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const slow = await subscriptionFor(t, topic.name, { depth: 5 });
    let total = 0;
    const reading = (async () => {
      let next = 0;
      for await (const message of slow) {
        assert.ok(isPattern(message.bytes, message.sequence));
        assert.equal(message.sequence, (next + message.missed) >>> 0);
        next = message.sequence + 1;
        total += 1 + message.missed;
        if (message.sequence % 7 === 0) await sleep(1);
        message.release();
      }
    })();
    for (let i = 0; i < 500; i++) {
      await publish(topic, [SMALL, LARGE, 9000, 0, 8192][i % 5] ?? 0);
      if (i % 11 === 0) await sleep(1);
    }
    await topic.close();
    await reading;
    assert.equal(total, 500);
  });
});

describe('a subscription', () => {
  it('has one consumer, and is read on behind break', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const subscription = await subscriptionFor(t, topic.name);
    await publish(topic, SMALL, 4);
    for await (const message of subscription) {
      assert.equal(message.sequence, 0);
      assert.equal(message.topic, topic.name);
      assert.equal(await codeOf(subscription.readable()), 'ERR_UKSHM_BUSY');
      assert.throws(() => subscription.drain(() => {}), /consumer/);
      const second = merge(subscription)[Symbol.asyncIterator]();
      assert.equal(await codeOf(second.next()), 'ERR_UKSHM_BUSY');
      message.release();
      break;
    }
    assert.equal(
      subscription.drain(() => {}, 1),
      1,
    );
    for await (const message of subscription) {
      assert.equal(message.sequence, 2);
      assert.equal(message.text(), pattern(SMALL, 2).toString());
      assert.deepEqual(Buffer.from(message.copy()), pattern(SMALL, 2));
      assert.throws(() => message.json(), SyntaxError);
      message.release();
      message.release();
      assert.throws(() => message.bytes, /released/);
      break;
    }
    const kept: TopicMessage[] = [];
    subscription.drain((message) => {
      const target = new Uint8Array(SMALL);
      assert.equal(message.copyTo(target), SMALL);
      assert.deepEqual(Buffer.from(target), pattern(SMALL, 3));
      assert.deepEqual(
        message.memory.subarray(message.offset, message.offset + message.lengthBytes),
        new Uint8Array(pattern(SMALL, 3)),
      );
      kept.push(message.take());
    });
    assert.deepEqual(subscription.stats(), {
      received: 4,
      missed: 0,
      heldInline: 1,
      heldChunks: 0,
    });
    kept[0]?.release();
  });

  it('waits no longer than its signal says', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const subscription = await subscriptionFor(t, topic.name);
    const signal = AbortSignal.timeout(20);
    assert.equal(await codeOf(subscription.readable({ signal })), 'TimeoutError');
    await subscription.close();
    assert.equal(await codeOf(subscription.readable()), 'ERR_UKSHM_CLOSED');
    await until('the publisher knows', () => topic.subscribers.length === 0);
  });

  it('waits for its topic if told so', OPTIONS, async (t) => {
    const name = uniqueName('later');
    assert.equal(await codeOf(subscribe(name)), 'ERR_UKSHM_NO_LISTENER');
    const waiting = subscribe(name, { wait: true });
    assert.ok(await isPending(waiting));
    await topicFor(t, {}, name);
    const subscription = await waiting;
    t.after(() => subscription.close());
    assert.equal(subscription.topic, name);
    assert.equal(subscription.publisher.pid, process.pid);
  });

  it('of another user is possible where both sides wish it', { ...OPTIONS }, async (t) => {
    if (process.getuid?.() !== 0 || !ACTOR_IS_READABLE) {
      t.skip('not possible here: needs root, and sources that every user may read');
      return;
    }
    const topic = await topicFor(
      t,
      { access: { uids: [STRANGER] } },
      `${folderFor(t)}/topic.ukshm`,
    );
    const { chmodSync } = await import('node:fs');
    chmodSync(topic.name, 0o777);
    chmodSync(join(topic.name, '..'), 0o777);
    const nobody = await startTopicActor(t, { uid: STRANGER });
    assert.equal(await codeOf(nobody.call('subscribe', topic.name, 's')), 'ERR_UKSHM_WRONG_OWNER');
    await nobody.call('subscribe', topic.name, 's', { owner: { uids: [0] } });
    await publish(topic, LARGE, 2);
    const told = await nobody.call('receive', 's', 2);
    assert.ok(told.every(({ right }) => right));
    assert.equal(await codeOf(subscribe(topic.name)), 'ERR_UKSHM_ACCESS_DENIED');
  });
});

describe('a topic that was renamed', () => {
  it('is not taken for the one that had the name', OPTIONS, async (t) => {
    const folder = folderFor(t);
    const topic = await topicFor(t, {}, join(folder, 'old.ukshm'));
    const subscription = await subscriptionFor(t, topic.name);
    renameSync(topic.name, join(folder, 'new.ukshm'));
    const error = await subscribe(join(folder, 'new.ukshm')).catch((reason) => reason);
    assert.equal(error.code, 'ERR_UKSHM_NOT_OFFERED');
    assert.match(error.message, /old\.ukshm/);
    assert.equal(await codeOf(subscribe(topic.name)), 'ERR_UKSHM_NO_LISTENER');
    await publish(topic, SMALL);
    assert.deepEqual(await takeMany(subscription, 1), [[0, 0]], 'who had it has it still');
    // The same topic, seen through another folder, is the same.
    mkdirSync(join(folder, 'elsewhere'));
    renameSync(join(folder, 'new.ukshm'), join(folder, 'elsewhere/old.ukshm'));
    const moved = await subscriptionFor(t, join(folder, 'elsewhere/old.ukshm')).catch((e) => e);
    assert.equal(moved.code, 'ERR_UKSHM_CANNOT_FORWARD', 'its memory is reached by its own name');
  });
});

describe('merged subscriptions', () => {
  it('are read in turn, and tell whose a message is', OPTIONS, async (t) => {
    const topics = await Promise.all([topicFor(t), topicFor(t), topicFor(t)]);
    const all = await Promise.all(
      topics.map(({ name }) => subscriptionFor(t, name, { depth: 1000 })),
    );
    const [busy, second, third] = topics as [Topic, Topic, Topic];
    await publish(busy, SMALL, 200);
    await publish(second, LARGE, 3);
    await publish(third, SMALL, 3);
    const order: string[] = [];
    for await (const message of merge(...all)) {
      assert.ok(isPattern(message.bytes, message.sequence));
      order.push(message.topic);
      message.release();
      if (order.length === 206) break;
    }
    for (const { name } of [second, third]) {
      assert.ok(order.lastIndexOf(name) < 12, `${name} did not wait behind the busy one`);
    }
    // Behind break each can be read on, alone and together.
    await publish(second, SMALL);
    for await (const message of all[1] as Subscription) {
      message.release();
      break;
    }
    const rest: string[] = [];
    const reading = (async () => {
      for await (const message of merge(...all)) {
        rest.push(message.topic);
        message.release();
      }
    })();
    await publish(third, SMALL);
    await until('it was read', () => rest.length === 1);
    await third.close();
    await publish(busy, SMALL);
    await until('the others go on', () => rest.length === 2);
    await Promise.all([busy.close(), second.close()]);
    await reading;
    assert.deepEqual(rest, [third.name, busy.name]);
  });

  it('throw when a publisher dies, and lose nothing of the others', OPTIONS, async (t) => {
    const publisher = await startTopicActor(t);
    const name = uniqueName('dies');
    await publisher.call('openTopic', name);
    const topic = await topicFor(t);
    const both = await Promise.all([
      subscriptionFor(t, name),
      subscriptionFor(t, topic.name),
    ] as const);
    await publisher.call('publish', name, LARGE, 2);
    const seen: string[] = [];
    const reading = (async () => {
      for await (const message of merge(...both)) {
        seen.push(message.topic);
        message.release();
      }
    })();
    await until('both were read', () => seen.length === 2);
    publisher.kill();
    assert.equal(await codeOf(reading), 'ERR_UKSHM_PEER_GONE');
    await publish(topic, SMALL, 2);
    assert.deepEqual(await takeMany(both[1], 2), numbers(0, 2));
  });

  it('of none end at once', OPTIONS, async () => {
    for await (const message of merge()) assert.fail(`a message of ${message.topic}`);
  });
});
