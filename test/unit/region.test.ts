import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { describe, it } from 'node:test';
import { Region } from '../../src/memory/region.js';
import { addressOf, GUARD_BYTES, PAGE_BYTES } from '../../src/sys/memory.js';
import { throwsCode } from './rings.js';
import { EMULATED, maps, openDescriptors, regionMaps } from './tools.js';

const HUGE = 2 ** 21;

describe('a region', () => {
  it('is memory of at least the size asked for, filled with zeros', () => {
    const region = Region.create({ sizeBytes: 1, name: 'small' });
    assert.equal(region.sizeBytes, PAGE_BYTES);
    assert.equal(region.name, 'small');
    assert.equal(region.wired, false);
    assert.equal(region.hugePages, false);
    assert.deepEqual(region.notes, []);
    assert.ok(region.buffer instanceof ArrayBuffer);
    assert.equal(region.bytes.length, PAGE_BYTES);
    assert.equal(region.bytes.buffer, region.buffer);
    assert.ok(region.bytes.every((byte) => byte === 0));
    assert.deepEqual(region.stats(), {
      sizeBytes: PAGE_BYTES,
      freeBytes: PAGE_BYTES,
      chunkCount: 0,
    });
    region.close();
  });

  it('lies between two guards that nobody may touch', (t) => {
    if (EMULATED) {
      // It merges neighbours in /proc/self/maps as it likes.
      t.skip("not possible here: the emulator's own mappings lie between ours");
      return;
    }
    const region = Region.create({ sizeBytes: 3 * PAGE_BYTES, name: 'guarded' });
    const all = maps();
    const at = all.findIndex(({ path }) => path.includes('memfd:ukshm:guarded'));
    const [before, memory, after] = all.slice(at - 1, at + 2);
    assert.equal(memory.start, addressOf(region.bytes));
    assert.equal(memory.end - memory.start, region.sizeBytes);
    assert.equal(memory.rights, 'rw-s');
    for (const guard of [before, after]) {
      assert.match(guard.rights, /^---/);
      assert.ok(guard.end - guard.start >= GUARD_BYTES);
    }
    assert.deepEqual([before.end, memory.end], [memory.start, after.start]);
    region.close();
  });

  it('has all of its pages from the beginning', () => {
    const region = Region.create({ sizeBytes: 2 ** 20 });
    const { blocks, size } = statSync(`/proc/self/fd/${region.handle.fd}`);
    assert.ok(blocks * 512 >= size && size === region.sizeBytes);
    region.close();
  });

  it('refuses sizes, names and wishes that cannot be', () => {
    const bad = [
      ...[0, -1, 1.5, Number.NaN, 2 ** 36 + 1].map((sizeBytes) => ({ sizeBytes })),
      { sizeBytes: 1, name: 'x'.repeat(201) },
      { sizeBytes: 1, wired: 'yes' as 'require' },
      { sizeBytes: 1, hugePages: true as unknown as 'prefer' },
      { sizeBytes: 1, granuleBytes: 32 },
      { sizeBytes: 1, granuleBytes: 96 },
      { sizeBytes: 1, granuleBytes: 2 * PAGE_BYTES },
    ];
    const before = openDescriptors();
    for (const options of bad) {
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => Region.create(options));
    }
    assert.deepEqual(openDescriptors(), before, 'nothing is left of them');
  });

  it('takes a name of any letters, up to 200 bytes', () => {
    const name = `${'é'.repeat(99)} x`;
    const region = Region.create({ sizeBytes: 1, name });
    assert.equal(region.name, name);
    region.close();
  });

  it('gives its memory and its descriptor back at once when closed', () => {
    const before = openDescriptors();
    const region = Region.create({ sizeBytes: 2 ** 20, name: 'closing' });
    const { bytes } = region;
    bytes.fill(7);
    assert.equal(regionMaps('closing').length, 1);
    region.close();
    assert.equal(regionMaps('closing').length, 0);
    assert.deepEqual(openDescriptors(), before);
    assert.ok(bytes.every((byte) => byte === 0));
    bytes[3] = 5;
    assert.equal(bytes[3], 5, 'writing is harmless, and goes nowhere');
  });

  it('answers nothing but ERR_UKSHM_CLOSED after close(), which may be called again', () => {
    const region = Region.create({ sizeBytes: 4096, name: 'gone' });
    const chunk = region.alloc(64);
    region.close();
    region.close();
    region[Symbol.dispose]();
    const uses = [
      () => region.buffer,
      () => region.bytes,
      () => region.alloc(1),
      () => region.tryAlloc(1),
      () => chunk.free(),
      () => region.hold('nobody'),
      () => Region.attach(region.handle),
    ];
    for (const use of uses) throwsCode('ERR_UKSHM_CLOSED', use, /region 'gone' is closed/);
    assert.equal(chunk.bytes[0], 0);
  });

  it('is closed at the end of its block', () => {
    const region = Region.create({ sizeBytes: 1, name: 'disposed' });
    region[Symbol.dispose]();
    assert.equal(regionMaps('disposed').length, 0);
  });

  it('says who holds it, and is not closed meanwhile', () => {
    const region = Region.create({ sizeBytes: 1, name: 'held' });
    const releases = [region.hold('process 7'), region.hold('the kernel')];
    assert.deepEqual(region.heldBy, ['process 7', 'the kernel']);
    const close = (): void => region.close();
    throwsCode('ERR_UKSHM_REGION_HELD', close, /'held' is still held by process 7, the kernel/);
    region.bytes[0] = 1;
    releases[0]();
    releases[0]();
    throwsCode('ERR_UKSHM_REGION_HELD', close, /by the kernel$/);
    releases[1]();
    assert.deepEqual(region.heldBy, []);
    region.close();
  });
});

describe('chunks of a region', () => {
  it('are memory in place, aligned to a cache line, and do not overlap', () => {
    const region = Region.create({ sizeBytes: 2 ** 16 });
    const chunks = [1, 64, 65, 1000, 4096].map((length) => region.alloc(length));
    for (const [i, chunk] of chunks.entries()) {
      assert.equal(chunk.offset % 64, 0);
      assert.equal(chunk.bytes.byteOffset, chunk.offset);
      assert.equal(chunk.bytes.length, chunk.lengthBytes);
      assert.equal(chunk.bytes.buffer, region.buffer);
      chunk.bytes.fill(i + 1);
    }
    for (const [i, chunk] of chunks.entries()) assert.ok(chunk.bytes.every((b) => b === i + 1));
    const { freeBytes, chunkCount } = region.stats();
    assert.equal(chunkCount, 5);
    assert.equal(freeBytes, 2 ** 16 - (64 + 64 + 128 + 1024 + 4096));
    for (const chunk of chunks) chunk.free();
    assert.equal(region.stats().freeBytes, 2 ** 16);
    assert.equal(region.alloc(2 ** 16).offset, 0);
    region.close();
  });

  it('run out: alloc() throws and says how much is left, tryAlloc() answers undefined', () => {
    const region = Region.create({ sizeBytes: 2 ** 16, name: 'full' });
    region.alloc(2 ** 16 - 64);
    const text = /'full' has no 65 bytes in a row \(64 of 65536 are free\)/;
    throwsCode('ERR_UKSHM_NO_SPACE', () => region.alloc(65), text);
    assert.equal(region.tryAlloc(65), undefined);
    const last = region.alloc(64);
    assert.equal(region.tryAlloc(1), undefined);
    last.free();
    assert.ok(region.tryAlloc(64));
    region.close();
  });

  it('are freed once, by themselves', () => {
    const region = Region.create({ sizeBytes: 2 ** 16, name: 'twice' });
    const first = region.alloc(2 ** 16);
    first.free();
    const second = region.alloc(2 ** 16);
    assert.equal(second.offset, first.offset, 'the same memory, another chunk');
    throwsCode('ERR_UKSHM_DOUBLE_FREE', () => first.free(), /at \d+ of region 'twice'/);
    assert.equal(region.stats().chunkCount, 1);
    second.free();
    throwsCode('ERR_UKSHM_DOUBLE_FREE', () => second.free());
    region.close();
  });

  it('belong to their own region, whatever calls their free()', () => {
    const one = Region.create({ sizeBytes: 4096 });
    const other = Region.create({ sizeBytes: 4096 });
    const chunk = one.alloc(4096);
    const foreign = other.alloc(4096);
    const { free } = chunk;
    free.call(foreign);
    assert.equal(one.stats().chunkCount, 0);
    assert.equal(other.stats().chunkCount, 1);
    one.close();
    foreign.free();
    other.close();
  });

  it('are aligned as asked', () => {
    const region = Region.create({ sizeBytes: 2 ** 20 });
    region.alloc(64);
    for (const align of [1, 2, 64, 128, 4096, 65536, 2 ** 19]) {
      const chunk = region.alloc(64, { align });
      assert.equal(chunk.offset % align, 0);
    }
    for (const align of [0, 3, 96, -64, 2 ** 21, 1.5]) {
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => region.alloc(64, { align }));
    }
    region.close();
  });

  it('lie within one huge page where they are contiguous', () => {
    const region = Region.create({ sizeBytes: 3 * HUGE });
    region.alloc(HUGE / 2 + 64);
    const chunk = region.alloc(HUGE, { contiguous: true });
    assert.equal(chunk.offset % HUGE, 0);
    for (let i = 0; i < 3; i++) {
      const { offset } = region.alloc(HUGE / 2 - 4096, { contiguous: true });
      assert.equal(Math.floor(offset / HUGE), Math.floor((offset + HUGE / 2 - 4097) / HUGE));
    }
    throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => region.alloc(HUGE + 1, { contiguous: true }));
    assert.equal(region.tryAlloc(HUGE, { contiguous: true }), undefined);
    region.close();
  });

  it('have lengths from 1 to the size of the region', () => {
    const region = Region.create({ sizeBytes: PAGE_BYTES });
    for (const length of [0, -1, 1.5, PAGE_BYTES + 1, Number.NaN]) {
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => region.tryAlloc(length));
    }
    region.close();
  });

  it('occupy multiples of the granule, which grows with the region', () => {
    const occupied = (sizeBytes: number, granuleBytes?: number): number => {
      const region = Region.create({ sizeBytes, granuleBytes });
      region.alloc(1);
      const { freeBytes } = region.stats();
      region.close();
      return region.sizeBytes - freeBytes;
    };
    assert.equal(occupied(2 ** 22), 64);
    assert.equal(occupied(2 ** 22 + 1), 128);
    assert.equal(occupied(2 ** 22 + 1, 64), 64);
    assert.equal(occupied(2 ** 20, 4096), 4096);
  });
});

describe('a handle of a region', () => {
  it('attaches the same memory a second time, without its chunks', () => {
    const region = Region.create({ sizeBytes: 4096, name: 'twofold' });
    const attached = Region.attach(structuredClone(region.handle));
    attached.bytes[100] = 42;
    assert.equal(region.bytes[100], 42);
    throwsCode('ERR_UKSHM_NOT_OWNER', () => attached.alloc(1), /the thread that created it/);
    assert.equal(attached.sizeBytes, region.sizeBytes);
    attached.close();
    assert.equal(region.bytes[100], 42, 'closing one leaves the other');
    region.close();
  });

  it('keeps the memory while the one that created it is closed', () => {
    const region = Region.create({ sizeBytes: 4096 });
    const attached = Region.attach(region.handle);
    region.bytes[1] = 9;
    region.close();
    assert.equal(attached.bytes[1], 9);
    attached.close();
  });

  it('is worth nothing once the region is closed, even if its number is used again', () => {
    const region = Region.create({ sizeBytes: 4096, name: 'past' });
    const { handle } = region;
    region.close();
    throwsCode('ERR_UKSHM_CLOSED', () => Region.attach(handle));
    const taken = openSync('/dev/null', 'r');
    assert.equal(taken, handle.fd, 'the lowest free number is given out again');
    throwsCode('ERR_UKSHM_CLOSED', () => Region.attach(handle));
    closeSync(taken);
    const other = Region.create({ sizeBytes: 4096 });
    throwsCode('ERR_UKSHM_CLOSED', () => Region.attach(handle));
    other.close();
    assert.equal(readFileSync('/dev/null').length, 0);
  });

  it('is refused when it is none', () => {
    for (const handle of [undefined, null, {}, { fd: 'x' }, { fd: -1, inode: -9 }]) {
      assert.throws(() => Region.attach(handle as never));
    }
  });
});
