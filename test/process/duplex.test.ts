// Goal: a channel is a stream like any other: pipelines, back-pressure, half-closing, errors.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { Duplex, Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { finished, pipeline } from 'node:stream/promises';
import { describe, it } from 'node:test';
import { createGunzip, createGzip } from 'node:zlib';
import { listen } from '../../src/index.js';
import { codeOf, fixture, uniqueName } from './actors.js';
import { isPending, nextOf, pairOf } from './local.js';
import { pattern } from './pattern.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 262144, ringBytes: 4096 };

/** All that a stream has to say; unlike `buffer` it leaves the other direction open. */
async function textOf(stream: Duplex): Promise<string> {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(stream, 'end');
  return Buffer.concat(chunks).toString();
}

describe('a stream over a channel', () => {
  it('carries a file to another process and back', OPTIONS, async (t) => {
    const name = uniqueName('stream');
    const listener = await listen(name);
    t.after(() => listener.close());
    const child = spawn(process.execPath, [fixture('stream-peer'), name], { stdio: 'inherit' });
    t.after(() => child.kill('SIGKILL'));
    const closed = once(child, 'close');
    const stream = (await listener.accept()).duplex();
    const path = process.execPath;
    const hash = createHash('sha256');
    await Promise.all([
      pipeline(createReadStream(path, { end: 20_000_000 }), stream),
      pipeline(stream, hash),
    ]);
    const expected = createHash('sha256');
    await pipeline(createReadStream(path, { end: 20_000_000 }), expected);
    assert.equal(hash.digest('hex'), expected.digest('hex'));
    assert.deepEqual(await closed, [0, null]);
  });

  it('keeps the bytes of chunks of all sizes, empty ones among them', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const sizes = [0, 1, 511, 512, 513, 8192, 65_535, 65_536, 65_537, 300_000, 0, 5];
    const chunks = sizes.map((size, i) => pattern(size, i));
    const out = near.duplex();
    const received = buffer(far.duplex());
    for (const chunk of chunks) if (!out.write(chunk)) await once(out, 'drain');
    out.end();
    assert.deepEqual(await received, Buffer.concat(chunks));
  });

  it('runs both ways at once, and through transforms', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const stream = far.duplex();
    const back = pipeline(stream, createGunzip(), createGzip(), stream);
    const other = near.duplex();
    const bytes = pattern(3_000_000, 5);
    const [result] = await Promise.all([
      buffer(other.pipe(createGunzip())),
      pipeline(Readable.from([bytes]), createGzip(), other, { end: true }),
      back,
    ]);
    assert.deepEqual(result, bytes);
  });

  it('slows the writer down to its reader', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const out = near.duplex({ highWaterMark: 10_000 });
    const stream = far.duplex({ highWaterMark: 10_000 });
    let written = 0;
    const writing = (async () => {
      for (let i = 0; i < 500; i++) {
        written += 5000;
        if (!out.write(pattern(5000, i))) await once(out, 'drain');
      }
      out.end();
    })();
    assert.ok(await isPending(writing), 'nobody reads');
    assert.ok(written < 500_000, `it took ${written}`);
    let read = 0;
    for await (const chunk of stream) read += (chunk as Buffer).length;
    await writing;
    assert.equal(read, 2_500_000);
  });

  it('may end in one direction and go on in the other', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asking = near.duplex();
    const answering = far.duplex();
    asking.end('question');
    assert.equal(await textOf(answering), 'question');
    assert.equal(answering.writable, true);
    answering.end('answer');
    assert.equal(await textOf(asking), 'answer');
    await Promise.all([finished(asking), finished(answering)]);
    assert.equal((await near.closed).reason, 'closed');
  });

  it('is a Web stream by Node’s own adapters', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const { writable } = Duplex.toWeb(near.duplex());
    const { readable, writable: back } = Duplex.toWeb(far.duplex());
    const writer = writable.getWriter();
    const ended = back.close();
    const received = (async () => {
      const parts: Uint8Array[] = [];
      for await (const part of readable) parts.push(part as Uint8Array);
      return Buffer.concat(parts).toString();
    })();
    for (const word of ['one ', 'two ', 'three']) await writer.write(Buffer.from(word));
    await Promise.all([writer.close(), ended]);
    assert.equal(await received, 'one two three');
  });

  it('fails at the other side when it is destroyed here', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const out = near.duplex();
    const stream = far.duplex();
    out.write('begun');
    await once(stream, 'readable');
    out.destroy(new Error('changed my mind'));
    await assert.rejects(finished(out), /changed my mind/);
    stream.resume();
    assert.equal(await codeOf(finished(stream)), 'ERR_UKSHM_PEER_CLOSED');
  });

  it('fails when the other process is killed', OPTIONS, async (t) => {
    const name = uniqueName('stream');
    const listener = await listen(name);
    t.after(() => listener.close());
    const child = spawn(process.execPath, [fixture('stream-peer'), name, '1000000'], {
      stdio: 'inherit',
    });
    t.after(() => child.kill('SIGKILL'));
    const stream = (await listener.accept()).duplex();
    const endless = Readable.from(
      (function* () {
        for (;;) yield pattern(50_000, 1);
      })(),
    );
    const sink = new Writable({ write: (_chunk, _encoding, callback) => callback() });
    const results = await Promise.all([
      codeOf(pipeline(endless, stream)),
      codeOf(pipeline(stream, sink)),
    ]);
    assert.deepEqual(results, ['ERR_UKSHM_PEER_GONE', 'ERR_UKSHM_PEER_GONE']);
  });

  it('is the channel’s one consumer', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    near.duplex();
    assert.throws(() => near.duplex(), { code: 'ERR_UKSHM_BUSY' });
    assert.equal(await codeOf(nextOf(near)), 'ERR_UKSHM_BUSY');
    assert.throws(() => near.drain(() => {}), { code: 'ERR_UKSHM_BUSY' });
    far.trySend(new Uint8Array(0));
  });
});
