// Goal: TypeScript makes of the test vectors of joining, topics and shared regions what they say; the
// clients in C and Python run the same file (clients.test.ts).
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import { encodeImport } from '../../src/channel/frames.js';
import { SharedRegion } from '../../src/channel/meeting/shared-region.js';
import type { UkshmError } from '../../src/core/errors.js';
import { type Channel, connect, type Listener, listen } from '../../src/index.js';
import { openTopic, type Subscription, subscribe } from '../../src/patterns/topic/index.js';
import { ownUid } from '../../src/sys/process.js';
import { receive, send } from '../../src/sys/socket.js';
import { codeOf, uniqueName, until } from '../process/actors.js';
import { rawConnect } from '../process/raw-peer.js';
import { VECTORS_FILE } from './make-vectors.js';
import { TOPIC_KINDS } from './topic-vectors.js';
import { fromHex, toHex } from './vector-bytes.js';

const OPTIONS = { timeout: 30_000 };
const REQUEST = 0x4000;

const folder = mkdtempSync(join(tmpdir(), 'ukshm-vectors-'));
after(() => rmSync(folder, { recursive: true }));

function endLater(context: TestContext, channel: Channel | Subscription): void {
  context.after(() => channel.close({ signal: AbortSignal.abort() }).catch(() => {}));
}

async function listenFor(context: TestContext, name: string = uniqueName('v')): Promise<Listener> {
  const listener = await listen(name, { spinMicros: 0 });
  context.after(() => listener.close());
  return listener;
}

/** Sends a message, or a request, as a record of this type. */
async function say(channel: Channel, type: string, hex: string): Promise<void> {
  const number = Number(type);
  if (number < REQUEST) return channel.send(fromHex(hex), { type: number });
  channel.request(fromHex(hex), { type: number - REQUEST }).catch(() => {});
}

/** What the publisher of a topic makes of a first message. */
async function ask(t: TestContext, fields: readonly string[]): Promise<string> {
  const [topicName = '', block, type = '', hex = ''] = fields;
  // The name's last part is what counts: in a folder of its own, no other test has it.
  const path = join(folder, topicName);
  const topic = await openTopic(path, { arenaBytes: 65536, mayBlock: block === '1' });
  t.after(() => topic.close({ signal: AbortSignal.abort() }).catch(() => {}));
  const channel = await connect(path);
  endLater(t, channel);
  await say(channel, type, hex);
  try {
    for await (const message of channel) {
      if (message.type === 1) {
        const [one] = topic.subscribers;
        return `ok:slow=${one?.slow},depth=${one?.depth}`;
      }
      assert.equal(message.type, 2);
      const { code } = message.json() as { code: string };
      message.release();
      return `refused:${code}`;
    }
  } catch (error) {
    assert.equal((error as UkshmError).code, 'ERR_UKSHM_PEER_GONE');
  }
  return 'broken';
}

/** What a subscriber makes of its publisher's first message. */
async function answer(t: TestContext, fields: readonly string[]): Promise<string> {
  const [type = '', hex = ''] = fields;
  const listener = await listenFor(t);
  const answering = listener.accept().then(async (channel) => {
    endLater(t, channel);
    await say(channel, type, hex);
    // A message of the topic: what was missed before it tells which one came next.
    await channel.send(Buffer.from('one'), { id: 0 }).catch(() => {});
  });
  try {
    const subscription = await subscribe(listener.name);
    endLater(t, subscription);
    for await (const { missed } of subscription) {
      return `ok:number=${-missed >>> 0},kept=${subscription.kept}`;
    }
  } catch (error) {
    return `error:${(error as UkshmError).code}`;
  } finally {
    await answering;
  }
  return 'nothing';
}

/** What a subscriber makes of a message that is not one of the topic. */
async function lastWord(t: TestContext, fields: readonly string[]): Promise<string> {
  const [type = '', hex = ''] = fields;
  const listener = await listenFor(t);
  const [channel, subscription] = await Promise.all([
    listener.accept().then(async (accepted) => {
      await accepted.send(Buffer.from('{"sequence":5,"kept":0}'), { type: 1 });
      return accepted;
    }),
    subscribe(listener.name),
  ]);
  endLater(t, channel);
  endLater(t, subscription);
  await say(channel, type, hex);
  const closing = channel.close().catch(() => {});
  const code = await codeOf(
    (async () => {
      while (await subscription.readable())
        assert.equal(
          subscription.drain(() => {}),
          0,
        );
    })(),
  );
  await closing;
  if (code === 'ERR_UKSHM_PEER_MISBEHAVED') return 'broken';
  return `ok:missed=${subscription.missed},code=${code}`;
}

/** What a reader makes of messages in a region that it has mapped as number 1. */
async function readShared(t: TestContext, fields: readonly string[]): Promise<string> {
  const [ring = '', arena = '', sharedBytes = '', inOutbox = '', inRegion = ''] = fields;
  const sizes = { ringBytes: Number(ring), arenaBytes: Number(arena), spinMicros: 0 };
  const listener = await listen(uniqueName('vector'), sizes);
  t.after(() => listener.close());
  const region = await SharedRegion.create(listener, Number(sharedBytes));
  t.after(() => region.close());
  const [channel, raw] = await Promise.all([listener.accept(), rawConnect(listener.name)]);
  t.after(() => raw.close());
  endLater(t, channel);
  const { address, token } = region.origin;
  send(raw.fd, encodeImport({ region: 1, token, uid: ownUid(), address }));
  const imported = new Uint8Array(9);
  await until('it is mapped', () => receive(raw.fd, imported) === 9);
  assert.deepEqual([...imported], [3, 1, 0, 0, 0, 1, 0, 0, 0]);
  patch(region.mapping.bytes, inRegion);
  patch(raw.bytes, inOutbox);
  raw.ring();
  await until('the bell was heard', () => channel.stats().ringsReceived > 0);
  const seen: string[] = [];
  try {
    channel.drain(({ type, id, bytes }) => {
      seen.push(`${type}/${id}/${toHex(bytes)}`);
    });
  } catch (error) {
    assert.equal((error as UkshmError).code, 'ERR_UKSHM_PEER_MISBEHAVED');
    seen.push('broken');
  }
  return seen.join(',');
}

function patch(memory: Uint8Array, patches: string): void {
  if (patches === '-') return;
  for (const one of patches.split(';')) {
    const [at = '', hex = ''] = one.split('=');
    memory.set(fromHex(hex), Number(at));
  }
}

type Judge = (t: TestContext, fields: readonly string[]) => Promise<string>;
const judges: Readonly<Record<string, Judge>> = {
  shared: readShared,
  request: ask,
  answer,
  word: lastWord,
};

describe('the test vectors of topics', () => {
  const vectors = readFileSync(VECTORS_FILE, 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([kind = '']) => TOPIC_KINDS.includes(kind));

  it('are many of each kind', () => {
    for (const kind of TOPIC_KINDS) {
      assert.ok(vectors.filter(([one]) => one === kind).length > 10, kind);
    }
  });

  for (const [kind = '', name, ...fields] of vectors) {
    it(`${kind} ${name}`, OPTIONS, async (t) => {
      const judge = judges[kind] as Judge;
      assert.equal(await judge(t, fields.slice(0, -1)), fields.at(-1));
    });
  }
});
