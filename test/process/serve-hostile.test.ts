// Goal: clients that do less than they should hold up nobody but themselves.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connect, listen, serve } from '../../src/index.js';
import { HEAD_INDEX, TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import { uniqueName, until } from './actors.js';
import { endAll } from './local.js';
import { rawConnect } from './raw-peer.js';

const OPTIONS = { timeout: 30_000 };
const RING_BYTES = 4096;
const CONCURRENCY = 4;
/** A request without a body. */
const RECORD_BYTES = 8;
const REQUEST = 0x4000;

describe('a server', () => {
  it('is not held up by a client that reads no replies', OPTIONS, async (t) => {
    const name = uniqueName('unread');
    const listener = await listen(name, { ringBytes: RING_BYTES, arenaBytes: 0 });
    const server = serve(listener, () => new Uint8Array(100), { concurrency: CONCURRENCY });
    const raw = await rawConnect(name);
    t.after(() => raw.close());
    t.after(() => server.close());
    for (let at = 0; at < RING_BYTES; at += RECORD_BYTES) raw.record(at, 0, REQUEST);
    raw.store(TAIL_INDEX, RING_BYTES);
    raw.ring();
    // More replies than there is room for.
    const answered = Math.floor(RING_BYTES / (8 + 104));
    await until('as many are answered as there is room for', () => {
      return Atomics.load(raw.otherWords, TAIL_INDEX) >= (answered - 1) * 112;
    });
    const honest = await connect(name);
    t.after(() => endAll(honest));
    for (let i = 0; i < 3 * CONCURRENCY; i++) {
      const signal = AbortSignal.timeout(10_000);
      const reply = await honest.request(new Uint8Array(1), { signal });
      assert.equal(reply.lengthBytes, 100);
      reply.release();
    }
    // And it reads no more of them than it may answer at a time.
    const read = Atomics.load(raw.otherWords, HEAD_INDEX) / RECORD_BYTES;
    assert.ok(read <= answered + CONCURRENCY, `${read} requests were read`);
  });
});
