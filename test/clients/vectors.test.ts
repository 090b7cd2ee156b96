// Goal: the shared test vectors are what their maker says, and TypeScript makes of each what the
// vectors say; the clients in C and Python run the same file (clients.test.ts).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import {
  decodeImport,
  FRAME_BYTES,
  FRAME_DROP,
  FRAME_IMPORT,
  FRAME_IMPORTED,
  FRAME_RING,
} from '../../src/channel/frames.js';
import { decodeHello, decodeWelcome, isAck } from '../../src/channel/meeting/wire.js';
import { UkshmError } from '../../src/core/errors.js';
import { type Channel, listen } from '../../src/index.js';
import { codeOf, type Owner, uniqueName, until } from '../process/actors.js';
import { pattern } from '../process/pattern.js';
import { type RawConnector, rawConnect } from '../process/raw-peer.js';
import { makeVectors, VECTORS_FILE } from './make-vectors.js';
import { TOPIC_KINDS } from './topic-vectors.js';
import { fromHex, toHex } from './vector-bytes.js';

const OPTIONS = { timeout: 30_000 };
const text = readFileSync(VECTORS_FILE, 'utf8');
const vectors = text
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => line.split(' '));

function readHello(bytes: Uint8Array): string {
  const hello = decodeHello(bytes);
  const statuses = [
    'none',
    'version',
    'access',
    'limit',
    'no-memory',
    'unknown-token',
    'malformed',
  ];
  if (typeof hello === 'string') return `refused:${statuses.indexOf(hello)}`;
  const kind = ['channel', 'import', 'info'].indexOf(hello.kind);
  return (
    `ok:kind=${kind},flags=${hello.flags},` +
    `sendRing=${hello.sendRingBytes},sendArena=${hello.sendArenaBytes},` +
    `receiveRing=${hello.receiveRingBytes},receiveArena=${hello.receiveArenaBytes},` +
    `token=${toHex(hello.token)},address=${toHex(hello.importAddress)}`
  );
}

function readWelcome(bytes: Uint8Array): string {
  try {
    const w = decodeWelcome(bytes, 'a listener');
    return (
      `ok:flags=${w.flags},ring=${w.ringBytes},arena=${w.arenaBytes},` +
      `backRing=${w.backRingBytes},backArena=${w.backArenaBytes},token=${toHex(w.token)}`
    );
  } catch (error) {
    return `error:${(error as UkshmError).code}`;
  }
}

function readFrames(bytes: Uint8Array): string {
  const seen: string[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    for (let at = 0; at < bytes.length; ) {
      const type = bytes[at] as number;
      const length = FRAME_BYTES[type] ?? 0;
      if (length === 0) throw new UkshmError('ERR_UKSHM_PEER_MISBEHAVED', 'type');
      if (at + length > bytes.length) break;
      if (type === FRAME_RING) {
        seen.push('ring');
      } else if (type === FRAME_IMPORT) {
        const { region, uid, token, address } = decodeImport(bytes.subarray(at, at + length));
        seen.push(`import/${region}/${uid}/${toHex(token)}/${toHex(address)}`);
      } else if (type === FRAME_IMPORTED) {
        seen.push(`imported/${view.getUint32(at + 1, true)}/${view.getUint32(at + 5, true)}`);
      } else if (type === FRAME_DROP) {
        seen.push(`drop/${view.getUint32(at + 1, true)}`);
      }
      at += length;
    }
  } catch (error) {
    assert.equal((error as UkshmError).code, 'ERR_UKSHM_PEER_MISBEHAVED');
    seen.push('broken');
  }
  return seen.join(',');
}

/** A channel whose other side is in the test's hand. */
async function rawPair(owner: Owner, ring: string, arena: string) {
  const name = uniqueName('vector');
  const sizes = { ringBytes: Number(ring), arenaBytes: Number(arena) };
  const listener = await listen(name, { ...sizes, spinMicros: 0 });
  owner.after(() => listener.close());
  const [channel, raw] = await Promise.all([listener.accept(), rawConnect(name)]);
  owner.after(() => raw.close());
  owner.after(() => channel.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return { channel, raw };
}

function patch(raw: RawConnector, patches: string): void {
  if (patches === '-') return;
  for (const one of patches.split(';')) {
    const [at = '', hex = ''] = one.split('=');
    raw.bytes.set(fromHex(hex), Number(at));
  }
}

/** Rings, and waits until the channel has heard it. */
async function ring(channel: Channel, raw: RawConnector): Promise<void> {
  let ended = false;
  void channel.closed.then(() => {
    ended = true;
  });
  raw.ring();
  await until('the bell was heard', () => ended || channel.stats().ringsReceived > 0);
}

async function read(channel: Channel, raw: RawConnector): Promise<string> {
  const seen: string[] = [];
  await ring(channel, raw);
  try {
    channel.drain((message) => {
      const mark = message.isRequest ? 'q' : '';
      seen.push(`${mark}${message.type}/${message.id}/${toHex(message.bytes)}`);
      if (message.isRequest) void message.detach().reply();
    });
  } catch (error) {
    assert.equal((error as UkshmError).code, 'ERR_UKSHM_PEER_MISBEHAVED');
    seen.push('broken');
  }
  return seen.length === 0 ? '-' : seen.join(',');
}

async function collect(channel: Channel, raw: RawConnector): Promise<string> {
  await ring(channel, raw);
  const { ringBytesUsed, chunksLent } = channel.stats();
  const ended = await Promise.race([channel.closed, 'open']);
  if (ended === 'open') return `used=${ringBytesUsed},leased=${chunksLent}`;
  assert.equal(await codeOf(channel.readable()), 'ERR_UKSHM_PEER_MISBEHAVED');
  return 'broken';
}

describe('the test vectors', () => {
  it('are what their maker makes: node dist/test/clients/make-vectors.js', () => {
    assert.equal(text, makeVectors());
    assert.ok(vectors.length > 200);
    const names = vectors.map(([kind, name]) => `${kind} ${name}`);
    assert.equal(new Set(names).size, names.length, 'each has a name of its own');
  });

  const plain: Record<string, (bytes: Uint8Array) => string> = {
    hello: readHello,
    welcome: readWelcome,
    ack: (bytes) => (isAck(bytes) ? 'ok' : 'broken'),
    frames: readFrames,
  };
  for (const [kind = '', name, ...fields] of vectors) {
    if (TOPIC_KINDS.includes(kind)) continue;
    it(`${kind} ${name}`, OPTIONS, async (t) => {
      const decode = plain[kind];
      if (decode !== undefined) {
        const [hex = '', expected] = fields;
        assert.equal(decode(fromHex(hex)), expected);
      } else if (kind === 'reader') {
        const [ring = '', arena = '', patches = '', expected] = fields;
        const { channel, raw } = await rawPair(t, ring, arena);
        patch(raw, patches);
        assert.equal(await read(channel, raw), expected);
      } else {
        assert.equal(kind, 'writer');
        const [ring = '', arena = '', sends = '', patches = '', expected] = fields;
        const { channel, raw } = await rawPair(t, ring, arena);
        for (const size of sends.split(',').map(Number)) {
          assert.ok(channel.trySend(pattern(size, 0)));
        }
        patch(raw, patches);
        assert.equal(await collect(channel, raw), expected);
      }
    });
  }
});
