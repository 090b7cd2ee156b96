// Chunks of one range of granules. All state is private: no peer can see or spoil it.
//
// Free space is kept as buddies (blocks of 2^k granules at multiples of 2^k). A request of n
// granules takes the smallest free block of at least n and gives the rest of it back at once, so a
// chunk occupies its length rounded up to one granule. When no such block is free, the free
// blocks in address order are tried as runs (first fit): a request fails only if no n granules in
// a row are free. Freed chunks wait in a short queue, are given out again first in, first out, and
// are merged when something does not fit: so little more memory is touched than was in use at a
// time, and of the chunks that wait the one is used that its last reader's cache has most probably
// let go.
//
//     start      index of a chunk's first granule; also its number
//     length     granules of the chunk that starts here; 0 where none does
//     order      k of the free block that starts here; -1 where none does
import { assert } from '../core/check.js';
import { ceilLog2, roundUp } from '../core/u32.js';

/** A power of two. */
const RECENT_MAX = 64;
/**
 * While fewer freed chunks wait, memory not used yet is taken first: a writer that is behind its
 * reader would else have two or three chunks in turn, which the reader's cache still has. Streams
 * of 64 KiB are 10 % faster so.
 */
const RECENT_MIN = 8;
const NONE = -1;

export class ChunkAllocator {
  readonly granuleBytes: number;
  readonly granuleCount: number;
  readonly #contiguousGranules: number;
  readonly #length: Int32Array;
  readonly #order: Int8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #heads: Int32Array = new Int32Array(32).fill(NONE);
  readonly #recent: Int32Array = new Int32Array(RECENT_MAX);
  #recentFirst = 0;
  #recentCount = 0;
  #freeGranules: number;
  #chunkCount = 0;
  /** Requests of at least this many granules have failed since the last free. */
  #failedGranules: number = Number.POSITIVE_INFINITY;

  /**
   * @param sizeBytes - a multiple of `granuleBytes`.
   * @param granuleBytes - a power of two.
   * @param contiguousBytes - what a `contiguous` chunk never crosses a multiple of.
   */
  constructor(sizeBytes: number, granuleBytes: number, contiguousBytes: number) {
    this.granuleBytes = granuleBytes;
    this.granuleCount = sizeBytes / granuleBytes;
    this.#contiguousGranules = contiguousBytes / granuleBytes;
    this.#length = new Int32Array(this.granuleCount);
    this.#order = new Int8Array(this.granuleCount).fill(NONE);
    this.#next = new Int32Array(this.granuleCount);
    this.#previous = new Int32Array(this.granuleCount);
    this.#freeGranules = this.granuleCount;
    this.#giveBack(0, this.granuleCount);
  }

  get freeBytes(): number {
    return this.#freeGranules * this.granuleBytes;
  }

  get chunkCount(): number {
    return this.#chunkCount;
  }

  /** Bytes that the chunk starting at granule `start` occupies; 0 if none starts there. */
  occupiedBytes(start: number): number {
    return (this.#length[start] as number) * this.granuleBytes;
  }

  /**
   * The first granule of a new chunk, or -1 when no run of that length is free.
   *
   * @param lengthBytes - from 1 to the size of the whole.
   * @param alignBytes - a power of two; the chunk starts at a multiple of it.
   * @param contiguous - must not cross a huge page; then at most one huge page long.
   */
  tryAlloc(lengthBytes: number, alignBytes: number, contiguous: boolean): number {
    const need = roundUp(lengthBytes, this.granuleBytes) / this.granuleBytes;
    if (need > this.#freeGranules || need >= this.#failedGranules) return NONE;
    const align = Math.max(1, alignBytes / this.granuleBytes);
    let start = this.#recentCount < RECENT_MIN ? this.#takeBlock(need, align) : NONE;
    if (start === NONE) {
      const recent = this.#takeRecent(need, align, contiguous);
      if (recent !== NONE) return recent;
      start = this.#takeBlock(need, align);
    }
    if (start === NONE && this.#recentCount > 0) {
      this.#mergeRecent();
      start = this.#takeBlock(need, align);
    }
    if (start === NONE) start = this.#takeRun(need, align, contiguous);
    if (start !== NONE) this.#taken(start, need);
    else if (align === 1 && !contiguous) this.#failedGranules = need;
    return start;
  }

  /** Gives a chunk back. `start` must be a chunk's: callers check (`occupiedBytes`). */
  free(start: number): void {
    const length = this.#length[start] as number;
    assert(length > 0, 'free of a granule at which no chunk starts');
    this.#freeGranules += length;
    this.#chunkCount--;
    this.#failedGranules = Number.POSITIVE_INFINITY;
    if (this.#recentCount === RECENT_MAX) this.#mergeOldest();
    this.#recent[(this.#recentFirst + this.#recentCount++) % RECENT_MAX] = start;
  }

  /** Whether the run may be used as it lies. */
  #fits(start: number, need: number, align: number, contiguous: boolean): boolean {
    if (start % align !== 0) return false;
    if (!contiguous) return true;
    const page = this.#contiguousGranules;
    return Math.floor(start / page) === Math.floor((start + need - 1) / page);
  }

  #taken(start: number, need: number): void {
    this.#length[start] = need;
    this.#freeGranules -= need;
    this.#chunkCount++;
  }

  #takeRecent(need: number, align: number, contiguous: boolean): number {
    const recent = this.#recent;
    for (let i = 0; i < this.#recentCount; i++) {
      let at = (this.#recentFirst + i) % RECENT_MAX;
      const start = recent[at] as number;
      if (this.#length[start] !== need || !this.#fits(start, need, align, contiguous)) continue;
      // Those before it move up.
      for (; at !== this.#recentFirst; at = (at + RECENT_MAX - 1) % RECENT_MAX) {
        recent[at] = recent[(at + RECENT_MAX - 1) % RECENT_MAX] as number;
      }
      this.#dropOldest();
      this.#taken(start, need);
      return start;
    }
    return NONE;
  }

  /** The smallest buddy that holds `need`: naturally aligned, so it never crosses a larger power. */
  #takeBlock(need: number, align: number): number {
    for (let order = ceilLog2(Math.max(need, align)); order < 31; order++) {
      const start = this.#heads[order] as number;
      if (start === NONE) continue;
      this.#unlink(start, order);
      this.#giveBack(start + need, start + 2 ** order);
      return start;
    }
    return NONE;
  }

  /** First fit over neighbouring free blocks; only when no single block is large enough. */
  #takeRun(need: number, align: number, contiguous: boolean): number {
    let runStart = 0;
    let at = 0;
    while (at < this.granuleCount) {
      const order = this.#order[at] as number;
      if (order === NONE) {
        at += Math.max(1, this.#length[at] as number);
        runStart = at;
        continue;
      }
      at += 2 ** order;
      const start = this.#firstFit(runStart, at, need, align, contiguous);
      if (start === NONE) continue;
      for (let block = runStart; block < at; ) {
        const size = 2 ** (this.#order[block] as number);
        this.#unlink(block, this.#order[block] as number);
        block += size;
      }
      this.#giveBack(runStart, start);
      this.#giveBack(start + need, at);
      return start;
    }
    return NONE;
  }

  #firstFit(from: number, to: number, need: number, align: number, contiguous: boolean): number {
    const start = roundUp(from, align);
    if (start + need > to) return NONE;
    if (this.#fits(start, need, align, contiguous)) return start;
    const page = roundUp(start + 1, Math.max(this.#contiguousGranules, align));
    return page + need <= to ? page : NONE;
  }

  #dropOldest(): number {
    const start = this.#recent[this.#recentFirst] as number;
    this.#recentFirst = (this.#recentFirst + 1) % RECENT_MAX;
    this.#recentCount--;
    return start;
  }

  #mergeOldest(): void {
    this.#merge(this.#dropOldest());
  }

  #mergeRecent(): void {
    while (this.#recentCount > 0) this.#mergeOldest();
  }

  #merge(start: number): void {
    const length = this.#length[start] as number;
    this.#length[start] = 0;
    this.#giveBack(start, start + length);
  }

  /** Cuts `[from, to)` into buddies and frees each. */
  #giveBack(from: number, to: number): void {
    while (from < to) {
      let order = 31 - Math.clz32(to - from);
      while (from % 2 ** order !== 0) order--;
      this.#freeBlock(from, order);
      from += 2 ** order;
    }
  }

  #freeBlock(start: number, order: number): void {
    let size = 2 ** order;
    for (;;) {
      const buddy = (start ^ size) >>> 0;
      if (buddy + size > this.granuleCount || this.#order[buddy] !== order) break;
      this.#unlink(buddy, order);
      start = Math.min(start, buddy);
      order++;
      size *= 2;
    }
    const head = this.#heads[order] as number;
    this.#order[start] = order;
    this.#next[start] = head;
    this.#previous[start] = NONE;
    if (head !== NONE) this.#previous[head] = start;
    this.#heads[order] = start;
  }

  #unlink(start: number, order: number): void {
    const next = this.#next[start] as number;
    const previous = this.#previous[start] as number;
    if (previous === NONE) this.#heads[order] = next;
    else this.#next[previous] = next;
    if (next !== NONE) this.#previous[next] = previous;
    this.#order[start] = NONE;
  }
}
