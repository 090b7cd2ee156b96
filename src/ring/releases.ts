// The release ring: which of the other side's chunks this side is done with.
//
//     slot: | u32 lease | u32 generation |
//
// It lies in the releaser's outbox. It needs no read cursor: it has as many slots as leases can be
// out at a time, and a lease is given out again only after its release was read.
import { peerMisbehaved } from '../core/errors.js';
import { type OutboxLayout, RELEASE_SLOTS, RELEASE_TAIL_INDEX } from '../memory/outbox-layout.js';

export class ReleaseWriter {
  readonly #words: Int32Array;
  readonly #firstIndex: number;
  #tail = 0;
  #published = 0;

  constructor(words: Int32Array, layout: OutboxLayout) {
    this.#words = words;
    this.#firstIndex = layout.releaseOffset >> 2;
  }

  push(lease: number, generation: number): void {
    const index = this.#firstIndex + (this.#tail & (RELEASE_SLOTS - 1)) * 2;
    this.#words[index] = lease;
    this.#words[index + 1] = generation;
    this.#tail = (this.#tail + 1) | 0;
  }

  /** Lets the owner see all pushed releases. @returns whether there were any. */
  publish(): boolean {
    if (this.#tail === this.#published) return false;
    this.#published = this.#tail;
    // RELEASE release tail, pairs with ACQUIRE in ReleaseReader: our reads of the chunk and the
    // slot come before it. SEQ_CST against the owner's sleep word.
    Atomics.store(this.#words, RELEASE_TAIL_INDEX, this.#tail);
    return true;
  }
}

export class ReleaseReader {
  readonly #peerWords: Int32Array;
  readonly #firstIndex: number;
  #position = 0;

  constructor(peerWords: Int32Array, layout: OutboxLayout) {
    this.#peerWords = peerWords;
    this.#firstIndex = layout.releaseOffset >> 2;
  }

  /**
   * Hands each new release to `onRelease`, which checks it against its private table.
   * @param outstanding - leases that are out: more releases cannot be true.
   * @returns the number of releases read.
   */
  drain(outstanding: number, onRelease: (lease: number, generation: number) => void): number {
    // ACQUIRE release tail, pairs with RELEASE in ReleaseWriter.
    const tail = Atomics.load(this.#peerWords, RELEASE_TAIL_INDEX);
    const count = (tail - this.#position) >>> 0;
    if (count === 0) return 0;
    if (count > outstanding) {
      throw peerMisbehaved(`it released ${count} chunks of ${outstanding} that it was lent`);
    }
    for (let i = 0; i < count; i++) {
      const index = this.#firstIndex + (this.#position & (RELEASE_SLOTS - 1)) * 2;
      const lease = (this.#peerWords[index] as number) >>> 0;
      const generation = (this.#peerWords[index + 1] as number) >>> 0;
      this.#position = (this.#position + 1) | 0;
      onRelease(lease, generation);
    }
    return count;
  }
}
