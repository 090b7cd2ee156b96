// A topic's shared memory, and the messages in it: each is written once, lent to every subscriber,
// and freed with the last hold on it.
import type { SharedRegion } from '../../channel/meeting/shared-region.js';
import { ChunkAllocator } from '../../memory/chunk-allocator.js';
import { HUGE_PAGE_BYTES } from '../../memory/mapping.js';

/** Chunks are multiples of this, or of as much as makes GRANULES_MAX of them. */
const GRANULE_BYTES_MIN = 4096;
const GRANULES_MAX = 65536;

/** A piece of a topic's memory. One object for each place, used again with it. */
export class TopicChunk {
  readonly region: TopicRegion;
  readonly granule: number;
  readonly offset: number;
  /** The message in it. */
  lengthBytes = 0;
  occupiedBytes = 0;
  #holds = 0;

  constructor(region: TopicRegion, granule: number, offset: number) {
    this.region = region;
    this.granule = granule;
    this.offset = offset;
  }

  hold(): void {
    this.#holds++;
  }

  /** Gives up one hold; with the last the memory is free. */
  drop(): void {
    this.#holds--;
    if (this.#holds === 0) this.region.free(this);
  }
}

export class TopicRegion {
  readonly shared: SharedRegion;
  readonly #allocator: ChunkAllocator;
  readonly #chunks: Map<number, TopicChunk> = new Map();
  #onEmpty: (() => void) | undefined = undefined;

  constructor(shared: SharedRegion) {
    const { arenaBytes } = shared.layout;
    let granule = GRANULE_BYTES_MIN;
    while (arenaBytes / granule > GRANULES_MAX) granule *= 2;
    this.shared = shared;
    this.#allocator = new ChunkAllocator(arenaBytes, granule, HUGE_PAGE_BYTES);
  }

  get freeBytes(): number {
    return this.#allocator.freeBytes;
  }

  /** A chunk with one hold on it; `undefined` when no run of that length is free. */
  tryChunk(lengthBytes: number): TopicChunk | undefined {
    const granule = this.#allocator.tryAlloc(lengthBytes, 1, false);
    if (granule < 0) return undefined;
    let chunk = this.#chunks.get(granule);
    if (chunk === undefined) {
      const { granuleBytes } = this.#allocator;
      const offset = this.shared.layout.arenaOffset + granule * granuleBytes;
      chunk = new TopicChunk(this, granule, offset);
      this.#chunks.set(granule, chunk);
    }
    chunk.lengthBytes = lengthBytes;
    chunk.occupiedBytes = this.#allocator.occupiedBytes(granule);
    chunk.hold();
    return chunk;
  }

  free(chunk: TopicChunk): void {
    this.#allocator.free(chunk.granule);
    if (this.#allocator.chunkCount === 0) this.#onEmpty?.();
  }

  /** Nothing more is written here; calls back when nothing of it is held any more. */
  retire(onEmpty: () => void): void {
    this.#onEmpty = onEmpty;
    // Now the subscribers may be told to unmap it, each when all of it is back.
    this.shared.origin.end();
    if (this.#allocator.chunkCount === 0) onEmpty();
  }

  /** The chunk's bytes, writable. */
  view(chunk: TopicChunk): Uint8Array {
    const { buffer } = this.shared.mapping;
    return new Uint8Array(buffer as ArrayBuffer, chunk.offset, chunk.lengthBytes);
  }

  /** Copies `bytes` to the start of the chunk. */
  write(chunk: TopicChunk, bytes: Uint8Array): void {
    this.shared.mapping.bytes.set(bytes, chunk.offset);
  }
}
