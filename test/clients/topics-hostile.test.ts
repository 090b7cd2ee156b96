// Goal: a peer that lies about a topic ends its own channel, with the error that TypeScript gives, in
// the clients in C and Python too; and everybody else goes on.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import type { Lent } from '../../src/channel/leases.js';
import { SharedRegion } from '../../src/channel/meeting/shared-region.js';
import type { UkshmError } from '../../src/core/errors.js';
import { type Channel, connect, listen } from '../../src/index.js';
import { HEAD_INDEX, RELEASE_TAIL_INDEX, TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import { subscribe } from '../../src/patterns/topic/index.js';
import { receive, send } from '../../src/sys/socket.js';
import { uniqueName, until } from '../process/actors.js';
import { hungUp, type RawConnector, rawConnect } from '../process/raw-peer.js';
import { compileSanitized, Language, pythonProgram, typescriptProgram } from './languages.js';

const OPTIONS = { timeout: 60_000 };
const COUNT = 400;
const SIZE = 20_000;

const folder = mkdtempSync(join(tmpdir(), 'ukshm-topics-'));
after(() => rmSync(folder, { recursive: true }));
compileSanitized('topic_actor.c', join(folder, 'topic_actor'));
const languages = [
  typescriptProgram('./topic-actor.js'),
  new Language('C', [join(folder, 'topic_actor')]),
  pythonProgram('topic_actor.py', '-X', 'dev', '-W', 'error'),
].filter(({ missing }) => missing === undefined);

/** Joins a topic as a subscriber would, and stays without manners. */
async function joinTopic(context: TestContext, name: string): Promise<RawConnector> {
  const raw = await rawConnect(name);
  context.after(() => raw.close());
  const wish = JSON.stringify({ topic: name, slow: 'drop-newest', depth: 7 });
  const text = Buffer.from(wish.padEnd(96));
  raw.record(0, text.length, 1, ...new Int32Array(new Uint8Array(text).buffer));
  raw.store(TAIL_INDEX, 8 + text.length);
  raw.ring();
  const heard: number[] = [];
  const bytes = new Uint8Array(256);
  await until('it is asked to map the memory', () => {
    const got = receive(raw.fd, bytes);
    if (got > 0) heard.push(...bytes.subarray(0, got));
    while (heard[0] === 1) heard.shift();
    return heard.length >= 132;
  });
  assert.equal(heard[0], 2);
  send(raw.fd, Uint8Array.of(3, ...heard.slice(1, 5), 1, 0, 0, 0));
  await until('it is admitted', () => Atomics.load(raw.otherWords, TAIL_INDEX) > 0);
  return raw;
}

const LIES: readonly (readonly [string, (raw: RawConnector) => void])[] = [
  [
    'releases what it was not lent',
    (raw) => {
      raw.words.set([4000, 0], raw.layout.releaseOffset >> 2);
      raw.store(RELEASE_TAIL_INDEX, 1);
    },
  ],
  ['releases too much', (raw) => raw.store(RELEASE_TAIL_INDEX, 99)],
  ['releases records that never were', (raw) => raw.store(HEAD_INDEX, 1 << 17)],
  ['sends nonsense on its socket', (raw) => void send(raw.fd, Uint8Array.of(77))],
  [
    'imports a region that it was not asked to',
    (raw) => void send(raw.fd, Uint8Array.of(3, 99, 0, 0, 0, 1, 0, 0, 0)),
  ],
];

const WISHES: readonly (readonly [string, number, string, string])[] = [
  ['no JSON', 1, 'topic, please', 'nothing'],
  ['another type', 0, '{"topic":"NAME"}', 'nothing'],
  ['another topic', 1, '{"topic":"other"}', 'ERR_UKSHM_NOT_OFFERED'],
  ['a wrong policy', 1, '{"topic":"NAME","slow":"very"}', 'ERR_UKSHM_INVALID_ARGUMENT'],
];

for (const language of languages) {
  describe(`a publisher in ${language.name}`, () => {
    for (const [what, lie] of LIES) {
      it(`drops a subscriber that ${what}`, OPTIONS, async (t) => {
        const name = uniqueName('hostile');
        const args = [name, '2', `${COUNT}`, '0', `${SIZE}`];
        const publisher = await language.startReady(t, 'publish', ...args);
        const honest = await subscribe(name, { slow: 'block', depth: 8 });
        t.after(() => honest.close());
        const raw = await joinTopic(t, name);
        let count = 0;
        // Before, the publisher might not have seen two of them at a time.
        while (count === 0 && (await honest.readable())) count += honest.drain(() => {}, 1);
        lie(raw);
        raw.ring();
        while (count < COUNT && (await honest.readable())) count += honest.drain(() => {});
        await hungUp(raw.fd);
        publisher.child.stdin?.end();
        while (await honest.readable())
          assert.equal(
            honest.drain(() => {}),
            0,
          );
        assert.equal((await publisher.ended)?.event, 'done', publisher.events.at(-1)?.message);
        assert.equal(honest.missed, 0);
      });
    }

    it('tells what is wrong with a wish, and goes on', OPTIONS, async (t) => {
      const name = uniqueName('hostile');
      const publisher = await language.startReady(t, 'publish', name, '0', '5', '5', '100');
      const mute = await connect(name);
      t.after(() => mute.close({ signal: AbortSignal.abort() }).catch(() => {}));
      for (const [what, type, text, code] of WISHES) {
        assert.equal(await wish(t, name, type, text.replace('NAME', name)), code, what);
      }
      const honest = await subscribe(name);
      assert.equal(honest.kept, 5);
      await honest.close();
      publisher.child.stdin?.end();
      assert.equal((await publisher.ended)?.event, 'done', publisher.events.at(-1)?.message);
    });
  });
}

/** The code with which a wish is refused. */
async function wish(
  context: TestContext,
  name: string,
  type: number,
  text: string,
): Promise<string> {
  const channel = await connect(name);
  context.after(() => channel.close({ signal: AbortSignal.abort() }).catch(() => {}));
  await channel.send(Buffer.from(text), { type });
  let told = 'nothing';
  try {
    for await (const message of channel) {
      assert.equal(message.type, 2);
      told = (message.json() as { code: string }).code;
      message.release();
    }
  } catch (error) {
    assert.equal((error as UkshmError).code, 'ERR_UKSHM_PEER_GONE');
  }
  return told;
}

/** What a lying publisher does to a channel that asked for its topic. */
type Lie = (context: TestContext, channel: Channel) => Promise<void>;

function says(...messages: readonly (readonly [type: number, text: string, id?: number])[]): Lie {
  return async (_, channel) => {
    for (const [type, text, id = 0] of messages) {
      await channel.send(Buffer.from(text), { type, id });
    }
  };
}

/** Lends messages in a shared region, the last of them beyond its end. */
const lendsTooMuch: Lie = async (context, channel) => {
  const listener = await listen(uniqueName('hostile'));
  context.after(() => listener.close());
  const region = await SharedRegion.create(listener, 65536);
  context.after(() => region.close());
  const { importer, sender } = channel.target;
  const exported = importer.handOut(region.origin);
  await exported.ready;
  await says([1, '{"sequence":5,"kept":0}'])(context, channel);
  // As the actors publish it.
  for (let i = 0; i < 100; i++) region.mapping.bytes[65536 + i] = 5 * 131 + i * 7;
  const lent: Lent = { comeBack: () => {} };
  for (const [offset, id] of [
    [65536, 5],
    [region.layout.totalBytes - 99, 6],
  ] as const) {
    assert.ok(sender.tryLend(lent, exported.region, offset, 100, 0, id));
  }
  sender.publish();
};

const PUBLISHERS: readonly (readonly [string, string, number, Lie])[] = [
  ['answers without a number', 'error', 0, says([1, '{"kept":0}'])],
  ['sends data before its answer', 'error', 0, says([0, 'data'])],
  [
    'answers twice',
    'done',
    1,
    says([1, '{"sequence":5,"kept":0}'], [0, '', 5], [1, '{"sequence":6,"kept":0}']),
  ],
  ['ends for no reason that there is', 'done', 0, says([1, '{"sequence":5,"kept":0}'], [2, '{}'])],
  ['lends what is not in its memory', 'done', 1, lendsTooMuch],
];

for (const language of languages) {
  describe(`a subscriber in ${language.name}`, () => {
    for (const [what, event, messages, lie] of PUBLISHERS) {
      it(`does not believe a publisher that ${what}`, OPTIONS, async (t) => {
        const name = uniqueName('hostile');
        const listener = await listen(name);
        t.after(() => listener.close());
        const subscriber = language.start(t, 'subscribe', name, 'drop-oldest', '8', '0');
        const channel = await listener.accept();
        t.after(() => channel.close({ signal: AbortSignal.abort() }).catch(() => {}));
        await lie(t, channel);
        const last = await subscriber.ended;
        assert.deepEqual([last?.event, last?.code], [event, 'ERR_UKSHM_PEER_MISBEHAVED']);
        assert.equal(last?.messages ?? 0, messages);
      });
    }
  });
}
