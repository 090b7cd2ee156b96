// Goal: a subscriber or a publisher that lies is told so, and harms nobody else. Method: raw peers
// that complete the meeting correctly, and then write what they must not.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type Listener } from '../../src/index.js';
import { HEAD_INDEX, RELEASE_TAIL_INDEX, TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import { subscribe, type Topic } from '../../src/patterns/topic/index.js';
import { send } from '../../src/sys/socket.js';
import { codeOf, until } from './actors.js';
import { endAll, listenFor } from './local.js';
import { hungUp, type RawConnector, rawConnect } from './raw-peer.js';
import { LARGE, publish, SMALL, topicFor } from './topics.js';

const OPTIONS = { timeout: 40_000 };

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
