// In place of src/memory/mapping.ts: one party's mapping of a memory of the world. Closed, it shows
// zeros to that party alone.
import { current } from '../explore/current.js';
import type { Memory } from '../explore/memory.js';

export const HUGE_PAGE_BYTES = 2097152;

export class Mapping {
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly longs: BigInt64Array;
  readonly sizeBytes: number;
  readonly #memory: Memory;
  #closed = false;

  constructor(memory: Memory) {
    this.#memory = memory;
    this.buffer = memory.buffer;
    this.bytes = new Uint8Array(this.buffer);
    this.words = new Int32Array(this.buffer);
    this.longs = new BigInt64Array(this.buffer);
    this.sizeBytes = this.buffer.byteLength;
  }

  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    this.#closed = true;
    if (current.party.index >= 0) this.#memory.closedBy |= 1 << current.party.index;
  }
}
