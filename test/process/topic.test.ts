// Goal: what is published once arrives everywhere, whole, in order and with its number; late ones get
// what is kept; whoever is behind gets what its policy says, and every gap is counted.
import assert from 'node:assert/strict';
import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  merge,
  openTopic,
  type Subscription,
  subscribe,
  type Topic,
  type TopicMessage,
} from '../../src/patterns/topic/index.js';
import { ACTOR_IS_READABLE, codeOf, uniqueName, until } from './actors.js';
import { folderFor, isPending } from './local.js';
import { isPattern, pattern } from './pattern.js';
import { startTopicActor, startTopicActors } from './topic-actors.js';
import {
  LARGE,
  numbers,
  publish,
  SMALL,
  subscriptionFor,
  take,
  takeAll,
  takeMany,
  topicFor,
} from './topics.js';

const OPTIONS = { timeout: 30_000 };
/** A user that is not the one of this process, and not the one that stands for nobody. */
const STRANGER = 12345;

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
