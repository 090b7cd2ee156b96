// Goal: a subscriber that stops, dies, lies or never says anything harms nobody else, and leaves
// nothing behind; neither does a publisher.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type Listener } from '../../src/index.js';
import { HEAD_INDEX, RELEASE_TAIL_INDEX, TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import {
  openTopic,
  subscribe,
  type Topic,
  type TopicOptions,
} from '../../src/patterns/topic/index.js';
import { send } from '../../src/sys/socket.js';
import { boundSockets, codeOf, uniqueName, until } from './actors.js';
import { endAll, isPending, listenFor } from './local.js';
import { isPattern, pattern } from './pattern.js';
import { hungUp, type RawConnector, rawConnect } from './raw-peer.js';
import { startTopicActor, startTopicActors, type TopicActor } from './topic-actors.js';

const OPTIONS = { timeout: 40_000 };
const SMALL = 100;
const LARGE = 20_000;
const MIB = 1048576;

async function topicFor(context: TestContext, options?: TopicOptions): Promise<Topic> {
  const topic = await openTopic(uniqueName('topic'), options);
  context.after(() => topic.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return topic;
}

async function publish(topic: Topic, lengthBytes: number, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await topic.publish(pattern(lengthBytes, topic.sequence));
}

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

/** A subscriber without manners, admitted: the publisher calls it one of its subscribers. */
async function hostile(context: TestContext, topic: Topic, wishes: object): Promise<RawConnector> {
  const raw = await rawConnect(topic.name);
  context.after(() => raw.close());
  const text = Buffer.from(JSON.stringify({ topic: topic.name, ...wishes }).padEnd(96));
  raw.record(0, text.length, 1, ...new Int32Array(new Uint8Array(text).buffer));
  raw.store(TAIL_INDEX, 8 + text.length);
  raw.ring();
  // It says that it has mapped region 1, as it was asked to.
  send(raw.fd, Uint8Array.of(3, 1, 0, 0, 0, 1, 0, 0, 0));
  await until('it is admitted', () => topic.subscribers.some(({ depth }) => depth === 7));
  return raw;
}

describe('a hostile subscriber', () => {
  const lies: readonly (readonly [string, (raw: RawConnector) => void])[] = [
    [
      'that releases what it was not lent',
      (raw) => {
        raw.words.set([9, 0], raw.layout.releaseOffset >> 2);
        raw.store(RELEASE_TAIL_INDEX, 1);
      },
    ],
    ['that releases too much', (raw) => raw.store(RELEASE_TAIL_INDEX, 99)],
    ['that releases records that never were', (raw) => raw.store(HEAD_INDEX, 1 << 17)],
    ['that sends nonsense on its socket', (raw) => void send(raw.fd, Uint8Array.of(77))],
    [
      'that imports a region that it was not asked to',
      (raw) => void send(raw.fd, Uint8Array.of(3, 9, 0, 0, 0, 1, 0, 0, 0)),
    ],
  ];
  for (const [what, lie] of lies) {
    it(`${what} ends its own channel`, OPTIONS, async (t) => {
      const topic = await topicFor(t);
      const honest = await subscribe(topic.name);
      t.after(() => honest.close());
      const raw = await hostile(t, topic, { slow: 'drop-newest', depth: 7 });
      await publish(topic, LARGE, 2);
      lie(raw);
      raw.ring();
      await publish(topic, LARGE, 20);
      await until('it is gone', () => topic.subscribers.length === 1);
      await hungUp(raw.fd);
      let count = 0;
      while (count < 22 && (await honest.readable())) count += honest.drain(() => {});
      assert.equal(honest.missed, 0);
    });
  }

  it('that rings all the time costs little', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const honest = await subscribe(topic.name);
    t.after(() => honest.close());
    const raw = await hostile(t, topic, { depth: 7 });
    const deadline = performance.now() + 300;
    const start = process.cpuUsage();
    while (performance.now() < deadline) {
      raw.ring();
      await sleep(0);
    }
    await publish(topic, SMALL, 5);
    let count = 0;
    while (count < 5 && (await honest.readable())) count += honest.drain(() => {});
    assert.equal(topic.subscribers.length, 2);
    t.diagnostic(`${process.cpuUsage(start).user / 1000} ms of processor time`);
  });

  const requests: readonly (readonly [string, number, string, string])[] = [
    ['of no JSON', 1, 'topic, please', 'nothing'],
    ['of JSON that is no object', 1, '[null', 'nothing'],
    ['for another topic', 1, '{"topic":"other"}', 'ERR_UKSHM_NOT_OFFERED'],
    ['for no topic', 1, '{}', 'ERR_UKSHM_NOT_OFFERED'],
    ['for values', 1, '{"values":"NAME"}', 'ERR_UKSHM_NOT_OFFERED'],
    ['with a wrong policy', 1, '{"topic":"NAME","slow":7}', 'ERR_UKSHM_INVALID_ARGUMENT'],
    ['with a wrong depth', 1, '{"topic":"NAME","depth":1e9}', 'ERR_UKSHM_INVALID_ARGUMENT'],
  ];
  for (const [what, type, text, code] of requests) {
    it(`is told what is wrong with a request ${what}`, OPTIONS, async (t) => {
      const topic = await topicFor(t);
      const channel = await connect(topic.name);
      t.after(() => endAll(channel));
      await channel.send(Buffer.from(text.replace('NAME', topic.name)), { type });
      let told = 'nothing';
      try {
        for await (const message of channel) {
          assert.equal(message.type, 2);
          told = (message.json() as { code: string }).code;
          message.release();
        }
      } catch (error) {
        assert.equal((error as { code: string }).code, 'ERR_UKSHM_PEER_GONE');
      }
      assert.equal(told, code);
      await channel.closed;
      assert.equal(topic.subscribers.length, 0);
      const honest = await subscribe(topic.name);
      await honest.close();
    });
  }
});

/** Answers whoever subscribes with messages of a test's own. */
async function answerWith(
  listener: Listener,
  messages: readonly (readonly [type: number, text: string, id?: number])[],
): Promise<void> {
  const channel = await listener.accept();
  for (const [type, text, id] of messages) {
    await channel.send(Buffer.from(text), { type, id: id ?? 0 });
  }
}

describe('a hostile publisher', () => {
  const WELCOME = [1, '{"sequence":5,"kept":0}'] as const;
  const answers: readonly (readonly [string, readonly [number, string][], string])[] = [
    ['of no JSON', [[1, 'welcome']], 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['without a number', [[1, '{"kept":0}']], 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['with a wrong number', [[1, '{"sequence":-1,"kept":0}']], 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['of another type', [[0, 'data']], 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['with a made-up reason', [[2, '{"code":"EVIL"}']], 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['with a reason', [[2, '{"code":"ERR_UKSHM_LIMIT"}']], 'ERR_UKSHM_LIMIT'],
    ['with none', [[2, '{}']], 'ERR_UKSHM_PEER_CLOSED'],
  ];
  for (const [what, messages, code] of answers) {
    it(`is not believed when it answers ${what}`, OPTIONS, async (t) => {
      const listener = await listenFor(t);
      const answering = answerWith(listener, messages);
      assert.equal(await codeOf(subscribe(listener.name)), code);
      await answering;
    });
  }

  it('that says nothing is waited for no longer than was wished', OPTIONS, async (t) => {
    const listener = await listenFor(t);
    assert.equal(await codeOf(subscribe(listener.name, { timeoutMs: 500 })), 'ERR_UKSHM_TIMEOUT');
    const signal = AbortSignal.timeout(500);
    assert.equal(await codeOf(subscribe(listener.name, { signal })), 'TimeoutError');
  });

  const later: readonly (readonly [string, readonly [number, string][]])[] = [
    ['a message of an unknown type', [[3, 'x']]],
    ['a second welcome', [[1, '{"sequence":5,"kept":0}']]],
    ['an end of no JSON', [[2, 'good-bye']]],
    ['an end without a number', [[2, '{}']]],
  ];
  for (const [what, messages] of later) {
    it(`that sends ${what} ends its own channel`, OPTIONS, async (t) => {
      const listener = await listenFor(t);
      const answering = answerWith(listener, [WELCOME, [0, 'one'], ...messages]);
      const subscription = await subscribe(listener.name);
      const seen: number[] = [];
      const reading = (async () => {
        for await (const message of subscription) {
          seen.push(message.missed);
          message.release();
        }
      })();
      assert.equal(await codeOf(reading), 'ERR_UKSHM_PEER_MISBEHAVED');
      assert.equal((await subscription.closed).reason, 'peer-misbehaved');
      assert.deepEqual(seen, [0xfffffffb], 'its number was 0 where 5 was promised');
      await answering;
    });
  }
});
