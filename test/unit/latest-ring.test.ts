// Goal: a reader has the newest value whole or none, whatever the writer does meanwhile, dies
// included; versions go round over u32.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { LATEST_BUFFERS, LatestReader, LatestWriter } from '../../src/ring/latest.js';
import { LATEST_AT, latestBytes } from './latest-memory.js';

interface Both {
  readonly words: Int32Array;
  readonly writer: LatestWriter;
  readonly reader: LatestReader;
}

function bothOf(start: number = 0): Both {
  const words = new Int32Array(latestBytes(1) / 4);
  words[LATEST_AT.versions] = start;
  const writer = new LatestWriter(words, LATEST_AT, 1, start);
  return { words, writer, reader: new LatestReader(words, LATEST_AT) };
}

function set({ words, writer }: Both, value: number): void {
  words[LATEST_AT.values + writer.prepare(0)] = value;
  writer.commit(0);
}

function valueAt({ words }: Both, version: number): number {
  return words[LATEST_AT.values + (version & (LATEST_BUFFERS - 1))] as number;
}

describe('versions of a latest value', () => {
  for (const start of [0, -3, 0x7ffffffe]) {
    it(`begin at ${start >>> 0} and name the newest buffer, across a wrap`, () => {
      const both = bothOf(start);
      for (let i = 1; i <= 10; i++) {
        set(both, i);
        const version = both.reader.begin(0);
        assert.equal(version >>> 0, (start + i) >>> 0);
        assert.equal(both.writer.version(0), (start + i) >>> 0);
        assert.equal(valueAt(both, version), i);
        assert.equal(both.reader.intact(0, version), true);
      }
    });
  }

  it('say whether the buffer may have been written meanwhile', () => {
    const both = bothOf(-2);
    set(both, 1);
    const version = both.reader.begin(0);
    for (const whole of [true, true]) {
      set(both, 9);
      assert.equal(both.reader.intact(0, version), whole);
      assert.equal(valueAt(both, version), 1, 'it is there still');
    }
    // The third may be followed by the beginning of a fourth, in the same buffer.
    set(both, 9);
    assert.equal(both.reader.intact(0, version), false);
    assert.equal(both.writer.prepare(0), version & (LATEST_BUFFERS - 1));
  });

  it('do not tell of a value whose writer died in the middle', () => {
    const both = bothOf();
    set(both, 7);
    for (let i = 0; i < 3; i++) both.words[LATEST_AT.values + both.writer.prepare(0)] = 13;
    const version = both.reader.begin(0);
    assert.equal(valueAt(both, version), 7);
    assert.ok(both.reader.intact(0, version));
  });

  it('are counted together, behind the directory', () => {
    const both = bothOf(-1);
    set(both, 1);
    assert.equal(both.reader.changes(), 0);
    assert.equal(both.reader.directory(), 0);
    both.writer.prepare(0);
    both.writer.commit(0, 1);
    assert.deepEqual(
      [both.reader.changes(), both.reader.directory(), both.reader.slotsUsed()],
      [1, 0, 1],
    );
  });
});

describe('a value that is set all the time', () => {
  for (const valueWords of [2, 64, 1024]) {
    it(`is read whole, and never goes back: ${valueWords * 4} bytes`, async (t) => {
      const buffer = new SharedArrayBuffer(latestBytes(valueWords));
      const words = new Int32Array(buffer);
      const reader = new LatestReader(words, LATEST_AT);
      const url = new URL('./fixtures/latest-writer.js', import.meta.url);
      const worker = new Worker(url, { workerData: { buffer, valueWords } });
      t.after(() => worker.terminate());
      await once(worker, 'message');
      const copy = new Int32Array(valueWords);
      const deadline = performance.now() + 700;
      let last = -1;
      let whole = 0;
      let distinct = 0;
      while (performance.now() < deadline) {
        for (let i = 0; i < 100; i++) {
          const version = reader.begin(0);
          const at = LATEST_AT.values + (version & (LATEST_BUFFERS - 1)) * valueWords;
          copy.set(words.subarray(at, at + valueWords));
          if (!reader.intact(0, version)) continue;
          const value = copy[0] as number;
          assert.ok(
            copy.every((word) => word === value),
            `torn: ${copy.slice(0, 8)}`,
          );
          assert.ok(value >= last, `${value} after ${last}`);
          whole++;
          if (value !== last) distinct++;
          last = value;
        }
      }
      assert.ok(whole > 100, `${whole} reads were whole`);
      assert.ok(distinct > 10, `${distinct} values were seen`);
    });
  }
});
