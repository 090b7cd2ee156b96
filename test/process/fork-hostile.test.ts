// Goal: what a forked child says of shared memory is input: a lie ends the pipe to that child, and
// the message in which it was is not delivered; everything else goes on.
// Method: children that answer the parent's invitation themselves, with one lie each.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { regionMaps } from '../unit/tools.js';
import { ECHO, type Forked, forked, ukshmFork, untilShared } from './forks.js';

const INDEX = JSON.stringify(new URL('../../src/index.js', import.meta.url).href);

/** Meets the parent as an honest child does, to send it parts; then runs the lie. */
function hostile(lie: string): string {
  return `
    const { connect } = await import(${INDEX});
    const { DefaultSerializer } = await import('node:v8');
    const { emit } = process;
    let sayReady;
    const ready = new Promise((resolve) => { sayReady = resolve; });
    process.emit = function (event, m, ...rest) {
      if (event !== 'internalMessage' || m.cmd !== 'NODE_UKSHM') return emit.call(this, event, m, ...rest);
      if (m.ready) sayReady();
      if (!m.invite || m.down) return true;
      connect(m.name, { owner: { uids: [m.uid] } }).then(async (channel) => {
        await ready;
        const key = typeof m.invite === 'string' ? Buffer.from(m.invite, 'hex') : m.invite;
        const piece = (part, length, offset, count) => {
          const bytes = new Uint8Array(16 + count);
          new Uint32Array(bytes.buffer, 0, 2).set([length, offset]);
          channel.trySend(bytes, { type: 1, id: part });
        };
        const marker = (kind, part, length, shared, rest = new Uint8Array(length - shared)) => {
          const bytes = new Uint8Array(32 + rest.length);
          bytes.set(key);
          new Uint32Array(bytes.buffer, 16, 4).set([kind, part, length, shared]);
          bytes.set(rest, 32);
          return bytes;
        };
        class Writer extends DefaultSerializer {
          _writeHostObject(view) { this.writeUint32(0); super._writeHostObject(view); }
        }
        const message = (value, ...buffers) => {
          const writer = new Writer();
          for (const number of [buffers.length / 2, ...buffers]) writer.writeUint32(number);
          writer.writeHeader();
          writer.writeValue({ value });
          const body = writer.releaseBuffer();
          process.send(marker(255, 0, body.length, 0, body));
        };
        const view = (...numbers) => message(marker(...numbers));
        ${lie}
      });
      return true;
    };
    process.on('message', () => {});
    process.send({ large: Buffer.alloc(200_000) });`;
}

async function expectEnd(child: Forked, words: RegExp): Promise<void> {
  const ended = once(child.process, 'disconnect').catch(() => undefined);
  await child.next();
  await child.exited;
  await ended;
  assert.equal(child.process.connected, false);
  assert.deepEqual(
    child.errors.map(({ code }) => code),
    ['ERR_UKSHM_PEER_MISBEHAVED'],
  );
  assert.match(child.errors[0]?.message ?? '', words);
  await assert.rejects(child.next(), /exit/);
}

const LIES: readonly (readonly [what: string, lie: string, words: RegExp])[] = [
  ['a part that never came', 'view(0, 1, 100, 100)', /no such part/],
  ['a buffer that never came', 'message(5, 1, 100)', /no such part/],
  ['more than came', 'piece(1, 100, 0, 50); view(0, 1, 100, 100)', /50 of its bytes/],
  ['another length', 'piece(1, 100, 0, 100); view(0, 1, 90, 90)', /100 of its bytes/],
  ['a marker that does not add up', 'view(0, 1, 9, 9, new Uint8Array(5))', /9 bytes, of which/],
  ['a marker cut short', 'message(new Uint8Array(key))', /marker of 16/],
  ['a message cut short', 'process.send(new Uint8Array(key))', /marker of 16/],
  ['a view in place of a message', 'process.send(marker(0, 1, 5, 0))', /kind 0 as a message/],
  ['a kind that there is not', 'piece(1, 8, 0, 8); view(77, 1, 8, 8)', /kind 77/],
  ['half a number', 'piece(1, 9, 0, 9); view(9, 1, 9, 9)', /9 bytes and of kind 9/],
  ['a message that is none', 'process.send(marker(255, 1, 99, 0))', /cannot be read/],
  [
    'a large message that is none',
    'piece(1, 99, 0, 99); process.send(marker(255, 1, 99, 99))',
    /cannot be/,
  ],
  ['a piece beyond its part', 'piece(1, 10, 0, 20); view(0, 1, 10, 10)', /a piece of 20/],
  ['a piece in the wrong place', 'piece(1, 20, 5, 5); view(0, 1, 20, 20)', /5 bytes at 5/],
  ['a part without bytes', 'piece(1, 0, 0, 0); view(0, 1, 0, 0)', /part 1 of 0/],
  ['a part that cannot be', 'piece(1, 2 ** 32 - 1, 0, 0); view(0, 1, 1, 1)', /of 4294967295/],
  [
    'a hundred parts begun',
    'for (let i = 1; i <= 100; i++) piece(i, 10_000, 0, 1); view(0, 100, 10_000, 1)',
    /64 parts/,
  ],
  [
    'a record of no type',
    'channel.trySend(new Uint8Array(9), { type: 9 }); view(0, 1, 5, 5)',
    /record of type 9/,
  ],
  [
    'a record cut short',
    'channel.trySend(new Uint8Array(9), { type: 1 }); view(0, 1, 5, 5)',
    /type 1 and 9/,
  ],
];

describe('a forked child that lies', { concurrency: 2 }, () => {
  for (const [what, lie, words] of LIES) {
    it(`by ${what} loses its pipe`, async () => {
      const child = forked(ukshmFork, hostile(lie), { serialization: 'advanced' });
      await expectEnd(child, words);
    });
  }

  for (const [what, text, words] of [
    ['nonsense', 'what', /in place of a Buffer's numbers/],
    ['a part that never came', '1:50', /no such part/],
    ['a part of another length', '2:5', /20 of its bytes/],
  ] as const) {
    it(`by ${what} in place of numbers loses its pipe`, async () => {
      const lie = `piece(2, 20, 0, 20);
        process.send({ type: 'Buffer', data: key.toString('hex') + ':${text}' })`;
      await expectEnd(forked(ukshmFork, hostile(lie)), words);
    });
  }

  it('is told of by a warning where nobody listens for errors', async () => {
    const warned = once(process, 'warning');
    const child = forked(ukshmFork, hostile('view(0, 1, 5, 5)'), { serialization: 'advanced' });
    child.process.removeAllListeners('error');
    const [warning] = await warned;
    assert.equal(warning.code, 'ERR_UKSHM_PEER_MISBEHAVED');
    await child.exited;
  });

  it('harms no other, and leaves nothing', async () => {
    const honest = forked(ukshmFork, ECHO, { serialization: 'advanced' });
    await untilShared(honest);
    const liar = forked(ukshmFork, hostile('view(0, 1, 5, 5)'), { serialization: 'advanced' });
    await expectEnd(liar, /no such part/);
    await untilShared(honest);
    await honest.end();
    for (let i = 0; i < 100 && regionMaps('fork-').length > 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.deepEqual(regionMaps('fork-'), []);
  });

  it('cannot make a piece of another child’s message appear', async () => {
    const honest = forked(ukshmFork, ECHO, { serialization: 'advanced' });
    await untilShared(honest);
    // Bytes like a marker's, but for the key, are bytes.
    const value = new Uint8Array(40).fill(7);
    honest.process.send({ value });
    assert.deepEqual(await honest.next(), { value });
    await honest.end();
  });
});
