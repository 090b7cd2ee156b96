// The version words of latest values: one writer, any number of readers, no lock.
//
//     slot:  | version | → buffer (version modulo 4) holds the newest value
//
// The writer fills a buffer that is not current, then stores the next version. A reader loads the
// version, copies out of the buffer that it names, and loads the version again: the writer comes
// back to that buffer only behind three further versions, so the copy is whole while at most two
// have come meanwhile, and it was the newest when the reader began. A writer that dies in the
// middle of a value has not stored its version. Versions run free over u32.
//
//     prohibited: writing the current buffer or one of the two before it (prepare answers the fourth)
import { beginRace, endRace, glanceAt, loadAfterStore } from './words.js';

/** Buffers of each slot; a power of two. */
export const LATEST_BUFFERS = 4;
/** Versions that may come during a read. */
const NEWER_MAX: number = LATEST_BUFFERS - 2;

/** Where the words of a table lie: indices of an Int32Array over the shared memory. */
export interface LatestWords {
  /** Counts all versions together. */
  readonly changes: number;
  /** Counts keys that came or went; the word behind it says how many slots were ever used. */
  readonly directory: number;
  /** Of the first slot's version; the others follow. */
  readonly versions: number;
}

export class LatestWriter {
  readonly #words: Int32Array;
  readonly #at: LatestWords;
  readonly #versions: Int32Array;
  #changes: number;
  #directory: number;

  /**
   * @param words - the shared memory, writable.
   * @param start - where all counts begin: 0 in fresh memory; tests begin just below 2^32.
   */
  constructor(words: Int32Array, at: LatestWords, slotCount: number, start: number = 0) {
    this.#words = words;
    this.#at = at;
    this.#versions = new Int32Array(slotCount).fill(start);
    this.#changes = this.#directory = start | 0;
  }

  version(slot: number): number {
    return (this.#versions[slot] as number) >>> 0;
  }

  /** The buffer to write for the slot's next version; then `commit`. */
  prepare(slot: number): number {
    // The bytes written next must not be seen before the versions that were stored last: on arm64 a
    // store may overtake the store-release before it, but not a load-acquire behind that.
    loadAfterStore(this.#words, this.#at.changes);
    return ((this.#versions[slot] as number) + 1) & (LATEST_BUFFERS - 1);
  }

  /**
   * Makes what was written the newest.
   * @param slotsUsed - where the slot has another key than before: how many slots were ever used.
   */
  commit(slot: number, slotsUsed: number = 0): void {
    const version = ((this.#versions[slot] as number) + 1) | 0;
    this.#versions[slot] = version;
    // RELEASE version, pairs with ACQUIRE in LatestReader: the buffer's bytes come before it.
    Atomics.store(this.#words, this.#at.versions + slot, version);
    if (slotsUsed > 0) this.#countKey(slotsUsed);
    this.#changes = (this.#changes + 1) | 0;
    // RELEASE changes, pairs with ACQUIRE in `LatestReader.changes`: version and directory come
    // before it. SEQ_CST against the reader's head: it takes its notice, then looks here; the writer
    // stores this, then looks whether the notice was taken.
    Atomics.store(this.#words, this.#at.changes, this.#changes);
  }

  #countKey(slotsUsed: number): void {
    this.#words[this.#at.directory + 1] = slotsUsed;
    this.#directory = (this.#directory + 1) | 0;
    // RELEASE directory, pairs with ACQUIRE in `LatestReader.directory`: the key comes before it.
    Atomics.store(this.#words, this.#at.directory, this.#directory);
  }
}

export class LatestReader {
  readonly #words: Int32Array;
  readonly #at: LatestWords;
  readonly #own: Int32Array = new Int32Array(1);

  constructor(words: Int32Array, at: LatestWords) {
    this.#words = words;
    this.#at = at;
  }

  /** Counts the versions of all slots. Whatever it counts is seen by the reads after it. */
  changes(): number {
    // ACQUIRE changes, pairs with RELEASE in `LatestWriter.commit`; SEQ_CST after the own head.
    return Atomics.load(this.#words, this.#at.changes);
  }

  /** Counts keys that came or went. Those that it counts are found by the reads after it. */
  directory(): number {
    // ACQUIRE directory, pairs with RELEASE in `LatestWriter.commit`.
    return Atomics.load(this.#words, this.#at.directory);
  }

  /** How many slots were ever used: behind `directory`. */
  slotsUsed(): number {
    // The writer may be counting another one: that is found by the next look.
    return glanceAt(this.#words, this.#at.directory + 1) >>> 0;
  }

  /** A look at a slot's version that orders nothing: to find those that have changed. */
  glance(slot: number): number {
    return glanceAt(this.#words, this.#at.versions + slot);
  }

  /** The slot's version: copy out of its buffer, then ask `intact`. */
  begin(slot: number): number {
    // ACQUIRE version, pairs with RELEASE in `LatestWriter.commit`: the buffer is whole.
    return beginRace(this.#words, this.#at.versions + slot);
  }

  /** Whether what was read since `begin` answered `version` is whole; else begin again. */
  intact(slot: number, version: number): boolean {
    // ACQUIRE version: the bytes were read before it.
    const now = endRace(this.#words, this.#at.versions + slot, this.#own);
    return (now - version) >>> 0 <= NEWER_MAX;
  }
}
