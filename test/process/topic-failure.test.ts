// Goal: a subscriber that stops, dies, lies or never says anything harms nobody else, and leaves
// nothing behind; neither does a publisher.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../src/index.js';
import { subscribe, type Topic } from '../../src/patterns/topic/index.js';
import { boundSockets, codeOf, uniqueName, until } from './actors.js';
import { endAll, isPending } from './local.js';
import { isPattern, pattern } from './pattern.js';
import { startTopicActor, startTopicActors, type TopicActor } from './topic-actors.js';
import { LARGE, publish, SMALL, topicFor } from './topics.js';

const OPTIONS = { timeout: 40_000 };
const MIB = 1048576;

async function expectFree(topic: Topic, freeBytes: number): Promise<void> {
  await until('everything came back', () => {
    void topic.subscribers;
    return topic.stats().freeBytes === freeBytes;
  });
}

describe('a stopped subscriber', () => {
  for (const slow of ['drop-oldest', 'drop-newest', 'disconnect'] as const) {
    it(`harms nobody else, and goes on where it can: ${slow}`, OPTIONS, async (t) => {
      const [stopped, live] = (await startTopicActors(t, 2)) as [TopicActor, TopicActor];
      const topic = await topicFor(t, { mayBlock: true });
      const { sharedBytes } = topic.stats();
      await stopped.call('subscribe', topic.name, 's', { slow, depth: 8 });
      await live.call('subscribe', topic.name, 's', { slow: 'block' });
      const heard = live.call('receiveAll', 's');
      stopped.kill('SIGSTOP');
      for (let i = 0; i < 300; i++) await publish(topic, [SMALL, LARGE, MIB][i % 3] ?? 0, 1);
      assert.equal(topic.stats().sharedBytes, sharedBytes, 'no memory was needed for it');
      for (const { peer, outstanding, queued } of topic.subscribers) {
        if (peer.pid === stopped.pid) assert.ok(outstanding <= 8 && queued <= 8);
      }
      stopped.kill('SIGCONT');
      const all = stopped.call('receiveAll', 's');
      await until('it has seen all', () => {
        return topic.subscribers.every(({ outstanding, queued }) => outstanding + queued === 0);
      });
      await topic.close();
      const lively = await heard;
      assert.deepEqual(
        { count: lively.count, right: lively.right, code: lively.code },
        { count: 300, right: true, code: 'end' },
      );
      const { count, missed, right, code } = await all;
      assert.ok(right && count > 0, `${count} were read`);
      if (slow === 'disconnect') assert.equal(code, 'ERR_UKSHM_TOO_SLOW');
      else assert.deepEqual({ sum: count + missed, code }, { sum: 300, code: 'end' });
    });
  }

  it('may be one of many: the others still get everything', OPTIONS, async (t) => {
    const [live, ...stopped] = (await startTopicActors(t, 9)) as [TopicActor, ...TopicActor[]];
    const topic = await topicFor(t, { mayBlock: true });
    for (const [i, one] of stopped.entries()) {
      await one.call('subscribe', topic.name, 's', { slow: 'drop-newest' });
      // Each stops with other messages than the ones before it.
      one.kill('SIGSTOP');
      await publish(topic, 500_000, 3 + i);
    }
    await live.call('subscribe', topic.name, 's', { slow: 'block' });
    const heard = live.call('receiveAll', 's');
    await publish(topic, 500_000, 80);
    assert.equal(topic.subscribers.length, 9, 'nobody had to go for that');
    await topic.close();
    const { count, right, missed } = await heard;
    assert.deepEqual({ count, right, missed }, { count: 80, right: true, missed: 0 });
    for (const one of stopped) one.kill('SIGKILL');
  });
});

describe('exhausted memory', () => {
  it(
    'ends the subscriptions that hold it up; what these hold stays as it is',
    OPTIONS,
    async (t) => {
      const [live, ...holders] = (await startTopicActors(t, 5)) as [TopicActor, ...TopicActor[]];
      // Each may hold two messages whatever happens: four of them hold all there is.
      const topic = await topicFor(t, {
        arenaBytes: MIB,
        patienceMs: 100,
        mayBlock: true,
        keep: 1,
      });
      const { sharedBytes, freeBytes } = topic.stats();
      for (const holder of holders) {
        await holder.call('subscribe', topic.name, 's', { slow: 'drop-newest' });
        const holding = holder.call('hold', 's', 2);
        await publish(topic, 130_000, 2);
        assert.equal((await holding).length, 2);
      }
      await live.call('subscribe', topic.name, 's', { slow: 'block' });
      const heard = live.call('receiveAll', 's');
      const first = topic.sequence;
      assert.equal(topic.tryPublish(pattern(130_000, first)), false);
      await publish(topic, 130_000, 50);
      assert.equal(topic.subscribers.length, 1);
      for (const holder of holders) {
        const held = await holder.call('look', 's');
        assert.ok(held.length === 2 && held.every(({ right }) => right), 'unchanged');
        const { code } = await holder.call('receiveAll', 's');
        assert.equal(code, 'ERR_UKSHM_TOO_SLOW');
        await holder.call('release', 's');
      }
      assert.equal(topic.stats().sharedBytes, sharedBytes, 'the old memory is given up');
      const late = await subscribe(topic.name);
      assert.equal(late.kept, 1, 'what was kept is kept');
      await topic.close();
      await late.close();
      const { count, missed, right, last, code } = await heard;
      assert.deepEqual(
        { count, missed, right, last, code },
        // The one that was kept, and those that were published then.
        { count: 51, missed: 0, right: true, last: first + 49, code: 'end' },
      );
      assert.ok(freeBytes > 0);
      for (const holder of holders) {
        await until('it maps nothing', async () => (await holder.call('usage')).memfds === 0);
      }
    },
  );

  it(
    'is not the subscribers’ fault where the program itself lent all of it',
    OPTIONS,
    async (t) => {
      const topic = await topicFor(t, { arenaBytes: MIB, patienceMs: 20 });
      const subscription = await subscribe(topic.name);
      t.after(() => subscription.close());
      const loans = [];
      for (let loan = topic.tryLoan(200_000); loan !== undefined; loan = topic.tryLoan(200_000)) {
        loans.push(loan);
      }
      assert.ok(loans.length >= 4);
      const waiting = topic.loan(200_000);
      await sleep(100);
      assert.ok(await isPending(waiting));
      loans[0]?.discard();
      (await waiting).discard();
      for (const loan of loans.slice(1)) await loan.publish();
      assert.equal(topic.subscribers.length, 1);
    },
  );

  it('is renewed under an open loan, which is published all the same', OPTIONS, async (t) => {
    const topic = await topicFor(t, { arenaBytes: MIB, patienceMs: 20 });
    const slow = { slow: 'drop-newest' } as const;
    const one = await subscribe(topic.name, slow);
    await publish(topic, 200_000, 2);
    const two = await subscribe(topic.name, { ...slow, depth: 1 });
    await publish(topic, 200_000, 1);
    t.after(() => Promise.all([one.close(), two.close()]));
    for (const holder of [one, two]) holder.drain((message) => void message.take());
    const loan = await topic.loan(200_000);
    assert.equal(topic.tryLoan(200_000), undefined, 'four fit');
    const live = await subscribe(topic.name);
    t.after(() => live.close());
    await publish(topic, 200_000, 1);
    loan.bytes.set(pattern(200_000, topic.sequence));
    await loan.publish();
    const seen: number[] = [];
    while (seen.length < 2 && (await live.readable())) {
      live.drain((message) => {
        if (isPattern(message.bytes, message.sequence)) seen.push(message.sequence);
      });
    }
    assert.deepEqual(seen, [3, 4]);
    assert.equal(await codeOf(one.readable().then(() => one.readable())), 'none');
    one.drain(() => {});
    assert.equal(await codeOf(one.readable()), 'ERR_UKSHM_TOO_SLOW');
    await until('the old memory is given up', () => {
      return topic.stats().sharedBytes < 2 * MIB;
    });
  });

  it('that comes back in time costs nobody anything', OPTIONS, async (t) => {
    const topic = await topicFor(t, { arenaBytes: MIB, patienceMs: 10_000 });
    const slow = await Promise.all(
      [0, 1, 2, 3].map(() => subscribe(topic.name, { slow: 'drop-newest' })),
    );
    t.after(() => Promise.all(slow.map((one) => one.close())));
    await publish(topic, 260_000, 3);
    const held = slow.map((one) => {
      const messages: { release(): void }[] = [];
      one.drain((message) => messages.push(message.take()));
      return messages;
    });
    // Each holds the first two.
    const loans = [topic.tryLoan(260_000), topic.tryLoan(260_000)];
    const waiting = publish(topic, 260_000, 1);
    assert.ok(await isPending(waiting));
    for (const messages of held) for (const message of messages) message.release();
    await waiting;
    for (const loan of loans) loan?.discard();
    assert.equal(topic.subscribers.length, 4);
  });
});

describe('a subscriber that dies', () => {
  for (const lengthBytes of [SMALL, LARGE]) {
    it(`in the middle of a message gives it back: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const [victim, live] = (await startTopicActors(t, 2)) as [TopicActor, TopicActor];
      const topic = await topicFor(t, { mayBlock: true });
      const { freeBytes } = topic.stats();
      await victim.call('subscribe', topic.name, 's', { slow: 'block', depth: 4 });
      await live.call('subscribe', topic.name, 's', { slow: 'block', depth: 4 });
      const heard = live.call('receiveAll', 's');
      const holding = victim.call('hold', 's', 3);
      await publish(topic, lengthBytes, 4);
      await holding;
      const waiting = publish(topic, lengthBytes, 3);
      assert.ok(await isPending(waiting), 'the victim blocks');
      victim.kill();
      await waiting;
      assert.equal(topic.subscribers.length, 1);
      await expectFree(topic, freeBytes);
      await topic.close();
      const { count, right } = await heard;
      assert.deepEqual({ count, right }, { count: 7, right: true });
    });
  }

  it('again and again under full load, leaves nothing', OPTIONS, async (t) => {
    const [publisher, live] = (await startTopicActors(t, 2)) as [TopicActor, TopicActor];
    const name = uniqueName('again');
    await publisher.call('openTopic', name, { mayBlock: true });
    await live.call('subscribe', name, 's', { slow: 'block' });
    const heard = live.call('receiveAll', 's');
    const before = await publisher.call('usage');
    const { freeBytes } = await publisher.call('topicStats', name);
    const flooded = publisher.call('flood', name, LARGE);
    for (let round = 0; round < 4; round++) {
      const victim = await startTopicActor(t);
      const slow = (['block', 'drop-oldest', 'disconnect'] as const)[round % 3];
      await victim.call('subscribe', name, 's', { slow });
      if (round % 2 === 0) void victim.call('receiveAll', 's', 1);
      else void victim.call('hold', 's', 20);
      await sleep(30);
      victim.kill();
      await victim.exited;
    }
    await until('they are forgotten', async () => {
      return (await publisher.call('subscribers', name)).length === 1;
    });
    await publisher.call('closeTopic', name);
    const { count, code } = await flooded;
    assert.equal(code, 'ERR_UKSHM_CLOSED');
    const all = await heard;
    assert.deepEqual({ count: all.count, right: all.right }, { count, right: true });
    const after = await publisher.call('usage');
    assert.ok(after.fds < before.fds && after.memfds === 0, JSON.stringify([before, after]));
    assert.ok(freeBytes > 0);
    assert.deepEqual(boundSockets(name), []);
  });
});

describe('a publisher that dies', () => {
  for (const lengthBytes of [SMALL, LARGE]) {
    it(`leaves whole messages, then an error: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const [publisher, one, two] = (await startTopicActors(t, 3)) as [
        TopicActor,
        TopicActor,
        TopicActor,
      ];
      const name = uniqueName('publisher-dies');
      await publisher.call('openTopic', name);
      await Promise.all([one.call('subscribe', name, 's'), two.call('subscribe', name, 's')]);
      const holding = two.call('hold', 's', 2);
      void publisher.call('flood', name, lengthBytes).catch(() => {});
      await holding;
      const heard = one.call('receiveAll', 's');
      await sleep(50);
      publisher.kill();
      const { count, right, code } = await heard;
      assert.ok(right && count > 0);
      assert.equal(code, 'ERR_UKSHM_PEER_GONE');
      assert.ok((await two.call('look', 's')).every((told) => told.right));
      assert.equal((await two.call('receiveAll', 's')).code, 'ERR_UKSHM_PEER_GONE');
      await two.call('release', 's');
      for (const actor of [one, two]) {
        await until('it maps nothing', async () => (await actor.call('usage')).memfds === 0);
      }
    });
  }
});

describe('many subscriptions', () => {
  it('leave nothing in either process', OPTIONS, async (t) => {
    const [publisher, client] = (await startTopicActors(t, 2)) as [TopicActor, TopicActor];
    const name = uniqueName('many');
    await publisher.call('openTopic', name, { keep: 2 });
    await publisher.call('publish', name, LARGE, 2);
    const round = async (id: number): Promise<void> => {
      await client.call('subscribe', name, `s${id}`, { depth: 8 });
      const told = await client.call('receive', `s${id}`, 2);
      assert.ok(told.every(({ right }) => right));
      await client.call('closeSubscription', `s${id}`);
    };
    const rounds = async (first: number, count: number): Promise<void> => {
      for (let id = first; id < first + count; id += 5) {
        await Promise.all([0, 1, 2, 3, 4].map((i) => round(id + i)));
      }
    };
    await rounds(0, 10);
    const before = [await publisher.call('usage'), await client.call('usage')];
    await rounds(100, 150);
    for (const [i, actor] of [publisher, client].entries()) {
      await until('as much is open as before', async () => {
        const { fds, memfds } = await actor.call('usage');
        return fds <= (before[i]?.fds ?? 0) && memfds <= (before[i]?.memfds ?? 0);
      });
    }
  });

  it('are bounded, and so are those who only knock', OPTIONS, async (t) => {
    const topic = await topicFor(t, { maxSubscribers: 3 });
    const mute = await connect(topic.name);
    t.after(() => endAll(mute));
    const two = await Promise.all([subscribe(topic.name), subscribe(topic.name)]);
    assert.equal(await codeOf(subscribe(topic.name)), 'ERR_UKSHM_LIMIT');
    await endAll(mute);
    await until('there is room', async () => {
      const code = await codeOf(
        subscribe(topic.name).then(async (one) => {
          two.push(one);
        }),
      );
      return code === 'none';
    });
    await Promise.all(two.map((one) => one.close()));
  });
});
