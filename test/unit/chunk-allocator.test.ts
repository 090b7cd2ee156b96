import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ChunkAllocator } from '../../src/memory/chunk-allocator.js';

const GRANULE = 64;
/** A small "huge page", so that small runs cross it. */
const PAGE_GRANULES = 8;
const PAGE = PAGE_GRANULES * GRANULE;

interface Request {
  readonly lengthBytes: number;
  readonly align: number;
  readonly contiguous: boolean;
}

/** Which granules are taken; nothing is clever here. */
class Model {
  readonly taken: boolean[];
  readonly chunks: { start: number; granules: number }[] = [];

  constructor(granules: number) {
    this.taken = new Array<boolean>(granules).fill(false);
  }

  get free(): number {
    return this.taken.filter((one) => !one).length;
  }

  suits(start: number, { lengthBytes, align, contiguous }: Request): boolean {
    const granules = Math.ceil(lengthBytes / GRANULE);
    if ((start * GRANULE) % align !== 0 || start + granules > this.taken.length) return false;
    if (this.taken.slice(start, start + granules).includes(true)) return false;
    const pageOf = (granule: number): number => Math.floor(granule / PAGE_GRANULES);
    return !contiguous || pageOf(start) === pageOf(start + granules - 1);
  }

  possible(request: Request): boolean {
    return this.taken.some((_, start) => this.suits(start, request));
  }

  mark(start: number, granules: number, taken: boolean): void {
    this.taken.fill(taken, start, start + granules);
  }
}

type Command = { readonly alloc: Request } | { readonly free: number };

function run(granules: number, commands: readonly Command[]): void {
  const model = new Model(granules);
  const allocator = new ChunkAllocator(granules * GRANULE, GRANULE, PAGE);
  const check = (): void => {
    assert.equal(allocator.freeBytes, model.free * GRANULE);
    assert.equal(allocator.chunkCount, model.chunks.length);
  };
  const free = (index: number): void => {
    const [chunk] = model.chunks.splice(index, 1);
    if (chunk === undefined) return;
    assert.equal(allocator.occupiedBytes(chunk.start), chunk.granules * GRANULE);
    allocator.free(chunk.start);
    model.mark(chunk.start, chunk.granules, false);
    check();
  };
  for (const command of commands) {
    if ('free' in command) {
      if (model.chunks.length > 0) free(command.free % model.chunks.length);
      continue;
    }
    const request = command.alloc;
    if (request.lengthBytes > granules * GRANULE) continue;
    const start = allocator.tryAlloc(request.lengthBytes, request.align, request.contiguous);
    assert.equal(start >= 0, model.possible(request), 'it fails only if no such run is free');
    if (start < 0) continue;
    assert.ok(model.suits(start, request));
    const chunk = { start, granules: Math.ceil(request.lengthBytes / GRANULE) };
    model.mark(start, chunk.granules, true);
    model.chunks.push(chunk);
    check();
  }
  while (model.chunks.length > 0) free(model.chunks.length >> 1);
  const whole = { lengthBytes: granules * GRANULE, align: 1, contiguous: false };
  assert.equal(allocator.tryAlloc(whole.lengthBytes, 1, false), 0, 'all is whole again');
  assert.equal(allocator.freeBytes, 0);
}

const lengths = fc.oneof(
  fc.integer({ min: 1, max: 6 * GRANULE }),
  fc.nat(40).map((n) => n * 64 + 1),
);
const request: fc.Arbitrary<Request> = fc.oneof(
  fc.record({
    lengthBytes: lengths,
    align: fc.constantFrom(1, 64, 64, 64, 128, 256, 1024),
    contiguous: fc.constant(false),
  }),
  fc.record({
    lengthBytes: fc.integer({ min: 1, max: PAGE }),
    align: fc.constantFrom(1, 64, 128, 512, 1024),
    contiguous: fc.constant(true),
  }),
);
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 3, arbitrary: request.map((alloc) => ({ alloc })) },
  { weight: 2, arbitrary: fc.nat(1000).map((free) => ({ free })) },
);

describe('a chunk allocator', () => {
  it('agrees with a table of granules in every order of commands', () => {
    // Sizes that are no power of two as well: the last granules belong to no large buddy.
    const granules = fc.oneof(
      fc.constantFrom(1, 2, 3, 8, 64, 96, 100, 127),
      fc.integer({ min: 1, max: 160 }),
    );
    const property = fc.property(
      granules,
      fc.array(command, { maxLength: 150, size: 'max' }),
      (count, commands) => run(count, commands),
    );
    fc.assert(property, { numRuns: 500 });
  });

  it('gives out the whole, and nothing when it holds nothing', () => {
    for (const granules of [1, 3, 64, 100]) {
      const allocator = new ChunkAllocator(granules * GRANULE, GRANULE, PAGE);
      assert.equal(allocator.tryAlloc(granules * GRANULE, 1, false), 0);
      assert.equal(allocator.tryAlloc(1, 1, false), -1);
      allocator.free(0);
      assert.equal(allocator.freeBytes, granules * GRANULE);
    }
    const empty = new ChunkAllocator(0, GRANULE, PAGE);
    assert.equal(empty.tryAlloc(1, 1, false), -1);
  });

  it('gives out again first what was freed first, of the same length', () => {
    const allocator = new ChunkAllocator(16 * GRANULE, GRANULE, PAGE);
    const chunks = [0, 1, 2, 3].map(() => allocator.tryAlloc(3 * GRANULE, 1, false));
    const other = allocator.tryAlloc(GRANULE, 1, false);
    while (allocator.tryAlloc(1, 1, false) >= 0) {}
    for (const chunk of [chunks[2], chunks[0], other, chunks[3]]) allocator.free(chunk);
    const again = [0, 1, 2].map(() => allocator.tryAlloc(2 * GRANULE + 1, 1, false));
    assert.deepEqual(again, [chunks[2], chunks[0], chunks[3]]);
    assert.equal(allocator.tryAlloc(1, 1, false), other);
  });

  it('lets eight freed chunks rest before the first of them is used again', () => {
    const allocator = new ChunkAllocator(64 * GRANULE, GRANULE, PAGE);
    const used: number[] = [];
    for (let i = 0; i < 20; i++) {
      used.push(allocator.tryAlloc(GRANULE, 1, false));
      allocator.free(used[i] as number);
    }
    assert.equal(new Set(used).size, 8);
    assert.deepEqual(used.slice(8, 16), used.slice(0, 8));
  });

  it('merges what was freed when something larger does not fit', () => {
    const allocator = new ChunkAllocator(16 * GRANULE, GRANULE, PAGE);
    const chunks = Array.from({ length: 16 }, () => allocator.tryAlloc(1, 1, false));
    for (const chunk of chunks.slice(3, 14)) allocator.free(chunk);
    assert.equal(allocator.tryAlloc(11 * GRANULE, 1, false), 3, 'over the borders of buddies');
    assert.equal(allocator.tryAlloc(1, 1, false), -1);
  });

  it('keeps a chunk within a page where one can be had, across buddies too', () => {
    const allocator = new ChunkAllocator(3 * PAGE, GRANULE, PAGE);
    const small = allocator.tryAlloc(GRANULE, 1, false);
    const whole = [allocator.tryAlloc(PAGE, 1, true), allocator.tryAlloc(PAGE, 1, true)];
    assert.ok(whole.every((start) => start >= 0 && start % PAGE_GRANULES === 0));
    assert.equal(new Set([small, ...whole]).size, 3);
    assert.equal(allocator.tryAlloc(PAGE, 1, true), -1);
    assert.equal(allocator.tryAlloc(7 * GRANULE, 1, true), small + 1);
  });

  it('never lends a granule twice over a long life', () => {
    // More chunks than wait unmerged, freed in an order that mixes lengths.
    const granules = 1000;
    const allocator = new ChunkAllocator(granules * GRANULE, GRANULE, PAGE);
    const owner = new Int32Array(granules);
    const chunks: { start: number; length: number; id: number }[] = [];
    let seed = 1;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % below;
    };
    for (let id = 1; id <= 20_000; id++) {
      const length = 1 + random(40);
      const start = allocator.tryAlloc(length * GRANULE, 1, false);
      if (start >= 0) {
        assert.ok(owner.subarray(start, start + length).every((one) => one === 0));
        owner.fill(id, start, start + length);
        chunks.push({ start, length, id });
      }
      if (start < 0 || random(3) === 0) {
        const [chunk] = chunks.splice(random(chunks.length), 1);
        assert.ok(
          owner.subarray(chunk.start, chunk.start + chunk.length).every((one) => one === chunk.id),
        );
        owner.fill(0, chunk.start, chunk.start + chunk.length);
        allocator.free(chunk.start);
      }
    }
  });
});
