// Goal: what holds large parts arrives as Node would have brought it, and through shared memory.
// Method: children that echo; how many bytes a process has written tells which way was taken.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ECHO, FORKS, type Forked, forked, ukshmFork, untilShared, writtenBytes } from './forks.js';
import { pattern } from './pattern.js';

const MODES = ['json', 'advanced'] as const;
const bytesOf = (view: ArrayBufferView): Buffer =>
  Buffer.from(view.buffer, view.byteOffset, view.byteLength);

/** Sends, and takes the echo. */
async function echo<T>(child: Forked, message: T): Promise<T> {
  child.process.send(message as object);
  return await child.next();
}

describe('large parts of messages', () => {
  for (const serialization of MODES) {
    it(`go through shared memory, at every length (${serialization})`, async () => {
      const child = forked(ukshmFork, ECHO, { serialization });
      await untilShared(child);
      const before = writtenBytes();
      let sum = 0;
      const lengths =
        serialization === 'json'
          ? [131_072, 131_073, 262_144, 1_000_001]
          : [131_071, 131_072, 262_143, 262_144, 262_145, 1_048_576, 5_000_003];
      for (const [seed, length] of lengths.entries()) {
        const bytes = Buffer.from(pattern(length, seed));
        const back = await echo<{ bytes: unknown; seed: number }>(child, { bytes, seed });
        assert.equal(back.seed, seed);
        if (serialization === 'json') assert.deepEqual(back.bytes, bytes.toJSON());
        else assert.ok(bytes.equals(back.bytes as Buffer), `${length} bytes`);
        sum += length;
      }
      assert.ok(writtenBytes() - before < sum / 4, 'most went through the pipe');
      if (serialization === 'advanced') {
        // More than the memory holds: what finds no room in time goes through the pipe.
        const bytes = Buffer.from(pattern(40_000_001, 9));
        assert.ok(bytes.equals((await echo(child, { bytes })).bytes));
      }
      await child.end();
    });
  }

  it('arrive as views of their kinds, and as what holds them', async () => {
    const child = forked(ukshmFork, ECHO, { serialization: 'advanced' });
    await untilShared(child);
    const base = new Uint8Array(pattern(1_600_024, 1)).buffer;
    const views = [
      new Int8Array(base, 3, 500_001),
      new Uint8Array(base, 1),
      new Uint8ClampedArray(base),
      new Int16Array(base, 2, 300_000),
      new Uint16Array(base),
      new Int32Array(base, 4, 100_000),
      new Uint32Array(base),
      new Float32Array(base),
      new Float64Array(base, 8, 100_000),
      new BigInt64Array(base, 16),
      new BigUint64Array(base),
      new DataView(base, 5, 400_001),
      Buffer.from(base, 7, 1_000_000),
      new Uint8Array(new SharedArrayBuffer(200_000)).fill(9),
    ];
    for (const view of views) {
      const { view: back } = await echo(child, { view });
      assert.equal(back.constructor, view.constructor);
      assert.ok(bytesOf(back).equals(bytesOf(view)), view.constructor.name);
      assert.equal(back.byteOffset, 0);
      assert.equal(back.buffer.byteLength, view.byteLength);
      assert.ok(!(back.buffer instanceof SharedArrayBuffer));
    }
    class Job {
      readonly #secret = 1;
      readonly input = new Uint8Array(200_000).fill(this.#secret);
    }
    const error = new Error('with', { cause: views[0] });
    const holders = {
      map: new Map([['a', views[0]]]),
      set: new Set([views[3]]),
      list: Object.assign([], { 0: 1, 2: views[8] }),
      job: new Job(),
      error,
      buffer: base,
      text: 'x'.repeat(300_000),
      many: Array.from({ length: 50 }, (_, i) => Buffer.alloc(10_000, i)),
    };
    const before = writtenBytes();
    const back = await echo(child, holders);
    assert.ok(writtenBytes() - before < 100_000, 'it went through the pipe');
    assert.ok(back.job instanceof Object && !(back.job instanceof Job));
    assert.deepEqual(
      { ...back, job: { ...(back.job as object) }, error: back.error.message },
      {
        ...holders,
        job: { ...holders.job },
        error: 'with',
      },
    );
    assert.deepEqual(await echo(child, base), base);
    await child.end();
  });

  it('keep their references as in Node', async () => {
    const view = new Uint8Array(200_000).fill(1);
    const message: Record<string, unknown> = { view, again: view, other: view.subarray(0) };
    message.self = message;
    message.list = [view, { view }];
    const seen = [];
    for (const [, fork] of FORKS) {
      const child = forked(fork, ECHO, { serialization: 'advanced' });
      if (fork === ukshmFork) await untilShared(child);
      const back = await echo<typeof message>(child, message);
      const [first, second] = back.list as [unknown, { view: unknown }];
      const { view: arrived } = back;
      seen.push([
        back.again === arrived,
        back.other === arrived,
        back.self === back,
        first === arrived,
        second.view === arrived,
      ]);
      await child.end();
    }
    assert.deepEqual(seen[0], [true, false, true, true, true]);
    assert.deepEqual(seen[1], seen[0]);
  });

  it('are the receiver’s own: to write to, keep and transfer', async () => {
    const child = forked(ukshmFork, ECHO, { serialization: 'advanced' });
    await untilShared(child);
    const bytes = Buffer.alloc(1_000_000, 5);
    const kept: Buffer[] = [];
    for (let i = 0; i < 40; i++) {
      const back = (await echo(child, { bytes })).bytes;
      back.fill(i);
      kept.push(back);
    }
    assert.ok(kept.every((one, i) => one.every((byte) => byte === i)));
    const [first] = kept;
    const { buffer } = first as Buffer;
    const moved = structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
    assert.equal(buffer.byteLength, 0);
    assert.equal(new Uint8Array(moved)[999_999], 0);
    await child.end();
  });

  it('are taken as they are when send is called', async () => {
    const child = forked(ukshmFork, ECHO, { serialization: 'advanced' });
    await untilShared(child);
    const bytes = Buffer.alloc(3_000_000, 1);
    child.process.send({ bytes });
    bytes.fill(2);
    const { bytes: back }: { bytes: Buffer } = await child.next();
    assert.ok(back.every((byte) => byte === 1));
    await child.end();
  });

  it('keep their order among small ones, with both sides sending at once', async () => {
    const code = `${ECHO}
      process.on('message', (m) => {
        if (!m.start) return;
        for (let i = 0; i < m.count; i++) {
          process.send({ own: i, part: Buffer.alloc(i % 3 === 0 ? 200_000 + i * 1000 : i, i) });
        }
      });`;
    const child = forked(ukshmFork, code, { serialization: 'advanced' });
    await untilShared(child);
    const count = 120;
    child.process.send({ start: true, count });
    for (let i = 0; i < count; i++) {
      child.process.send({ i, part: Buffer.alloc(i % 4 === 1 ? 150_000 + i * 2000 : i, i) });
    }
    const echoes: unknown[] = [];
    const own: unknown[] = [];
    while (echoes.length < count || own.length < count) {
      const message: { i?: number; own?: number; part?: Buffer } = await child.next();
      const { i, own: number, part } = message;
      if (part === undefined) continue;
      assert.ok(part.every((byte) => byte === ((i ?? number) as number) % 256));
      if (i === undefined) own.push(number);
      else echoes.push(i);
    }
    const order = Array.from({ length: count }, (_, i) => i);
    assert.deepEqual({ echoes, own }, { echoes: order, own: order });
    await child.end();
  });

  it('wait with their messages until there is a listener', async () => {
    for (const serialization of MODES) {
      const code = `${ECHO}
        const [listener] = process.listeners('message');
        process.on('message', (m) => {
          if (!m.pause) return;
          process.removeAllListeners('message');
          setTimeout(() => process.on('message', listener), 200);
        });`;
      const child = forked(ukshmFork, code, { serialization });
      await untilShared(child);
      await echo(child, { pause: true });
      const parts = [1, 2, 3].map((i) => Buffer.alloc(150_000, i));
      for (const [i, bytes] of parts.entries()) child.process.send({ i, bytes });
      for (const [i, part] of parts.entries()) {
        const message: { i: number; bytes: unknown } = await child.next();
        assert.equal(message.i, i);
        assert.deepEqual(message.bytes, serialization === 'json' ? part.toJSON() : part);
      }
      await child.end();
    }
  });

  it('are read once by getters, and left out where one throws', async () => {
    for (const serialization of MODES) {
      const child = forked(ukshmFork, ECHO, { serialization });
      await untilShared(child);
      let reads = 0;
      const bytes = Buffer.alloc(600_000, 3);
      const message = {
        get bytes() {
          reads++;
          return bytes;
        },
      };
      const back = await echo(child, message);
      assert.deepEqual([reads, Object.keys(back)], [1, ['bytes', 'written']]);
      // 60 MB would fill the memory, were it not given back.
      const failing = { bytes, f: serialization === 'json' ? 5n : () => {} };
      for (let i = 0; i < 100; i++) assert.throws(() => child.process.send(failing as object));
      await untilShared(child);
      await child.end();
    }
  });

  it('become, in mode json, the numbers that JSON makes of them', async () => {
    const child = forked(ukshmFork, ECHO);
    await untilShared(child);
    const part = Buffer.from(pattern(140_000, 3));
    const message = {
      a: [part, { part, text: 'x' }],
      typed: new Uint8Array([1, 2]),
      date: new Date(0),
      nothing: undefined,
      10: new Map(),
    };
    Object.defineProperty(message, '__proto__', { value: { part }, enumerable: true });
    const before = writtenBytes();
    const back = await echo(child, message);
    assert.ok(writtenBytes() - before < 100_000, 'it went through the pipe');
    assert.deepEqual(back, JSON.parse(JSON.stringify(message)));
    assert.deepEqual(Object.keys(back), Object.keys(JSON.parse(JSON.stringify(message))));
    assert.deepEqual(await echo(child, part), part.toJSON());
    await child.end();
  });

  it('are, in mode json, left to what makes its own JSON', async () => {
    const child = forked(ukshmFork, ECHO);
    await untilShared(child);
    const part = Buffer.from(pattern(140_000, 3));
    class Document {
      readonly part: Buffer = part;
      toJSON(key: string): unknown {
        return { key, part, text: JSON.stringify({ part }).length };
      }
    }
    let reads = 0;
    const messages = [
      { part, document: new Document() },
      { part: Object.assign(Buffer.from(part), { toJSON: () => 'its own' }) },
      {
        part,
        get value() {
          return ++reads;
        },
      },
    ];
    const expected = [
      {
        part: part.toJSON(),
        document: {
          key: 'document',
          ...JSON.parse(JSON.stringify({ part })),
          text: JSON.stringify({ part }).length,
        },
      },
      { part: 'its own' },
      { part: part.toJSON(), value: 1 },
    ];
    for (const [i, message] of messages.entries()) {
      assert.deepEqual(await echo<unknown>(child, message), expected[i]);
    }
    const { toJSON } = Buffer.prototype;
    Buffer.prototype.toJSON = () => ({ type: 'Buffer', data: [1] });
    child.process.send({ part });
    Buffer.prototype.toJSON = toJSON;
    assert.deepEqual(await child.next(), { part: { type: 'Buffer', data: [1] } });
    await child.end();
  });

  it('go the way that is free: a child that does not read delays nobody', async () => {
    const code = `${ECHO}
      process.on('message', (m) => {
        if (m.block) for (const start = Date.now(); Date.now() - start < m.block; ) {}
      });`;
    const child = forked(ukshmFork, code, { serialization: 'advanced' });
    await untilShared(child);
    child.process.send({ block: 1000 });
    const bytes = Buffer.from(pattern(40_000_000, 5));
    const start = performance.now();
    child.process.send({ bytes });
    child.process.send({ bytes: bytes.subarray(0, 1_000_000) });
    assert.ok(performance.now() - start < 900, `send took ${performance.now() - start} ms`);
    let count = 0;
    while (child.process.send({ bytes: bytes.subarray(0, 500_000) })) count++;
    assert.ok(count < 100, `${count} sends before the first one that tells to wait`);
    await child.next();
    assert.ok(bytes.equals(((await child.next()) as { bytes: Buffer }).bytes));
    assert.ok(
      bytes.subarray(0, 1_000_000).equals(((await child.next()) as { bytes: Buffer }).bytes),
    );
    for (; count >= 0; count--) {
      const { bytes: back }: { bytes: Buffer } = await child.next();
      assert.ok(bytes.subarray(0, 500_000).equals(back));
    }
    await untilShared(child);
    await child.end();
  });

  it('reach a parent whose child ends at once', async () => {
    for (const serialization of MODES) {
      const code = `${ECHO}
        process.on('message', (m) => {
          if (!m.last) return;
          process.send({ last: Buffer.alloc(800_000, 4) });
          process.exit(0);
        });`;
      const child = forked(ukshmFork, code, { serialization });
      await untilShared(child);
      child.process.send({ last: true });
      await child.next();
      const { last }: { last: Buffer & { data: number[] } } = await child.next();
      assert.equal((serialization === 'json' ? last.data : last).length, 800_000);
      assert.deepEqual(await child.closed, { code: 0, signal: null });
    }
  });

  it('are sent by a function that the program has kept', async () => {
    const code = `const send = process.send.bind(process);
      process.on('message', (m) => send(m))`;
    const child = forked(ukshmFork, code, { serialization: 'advanced' });
    const bytes = Buffer.from(pattern(300_000, 2));
    for (let i = 0; i < 20; i++) assert.ok(bytes.equals((await echo(child, { bytes })).bytes));
    await child.end();
  });
});
