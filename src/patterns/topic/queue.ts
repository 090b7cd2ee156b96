// What waits at the publisher for one subscriber that is behind: a bounded queue that gives up its
// old end.
import type { TopicChunk, TopicRegion } from './region.js';

/** A published message that waits, or is kept for those who come late. */
export interface Parcel {
  readonly sequence: number;
  /** A small message: a copy of its own. */
  readonly bytes: Uint8Array;
  /** A larger one lies here instead. */
  readonly chunk: TopicChunk | undefined;
}

export class Queue {
  readonly #countMax: number;
  readonly #parcels: Parcel[] = [];
  #chunkBytes = 0;

  /** @param countMax - at least 1. */
  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  get count(): number {
    return this.#parcels.length;
  }

  get first(): Parcel | undefined {
    return this.#parcels[0];
  }

  /** All of them, oldest first. */
  get parcels(): readonly Parcel[] {
    return this.#parcels;
  }

  /**
   * Puts a parcel behind the others, with a hold on its chunk.
   * @param chunkBytesMax - that the chunks of all may take together; one is always allowed.
   * @returns how many of the oldest were given up for it.
   */
  push(parcel: Parcel, chunkBytesMax: number): number {
    const { chunk } = parcel;
    chunk?.hold();
    this.#parcels.push(parcel);
    this.#chunkBytes += chunk?.occupiedBytes ?? 0;
    let dropped = 0;
    while (
      this.#parcels.length > this.#countMax ||
      (this.#parcels.length > 1 && chunk !== undefined && this.#chunkBytes > chunkBytesMax)
    ) {
      this.shift();
      dropped++;
    }
    return dropped;
  }

  /** Takes the oldest out, and gives up the hold on it. */
  shift(): void {
    const chunk = this.#parcels.shift()?.chunk;
    if (chunk === undefined) return;
    this.#chunkBytes -= chunk.occupiedBytes;
    chunk.drop();
  }

  /** Moves what lies in `from` to `to`, as far as it fits there; the rest is given up. */
  move(from: TopicRegion, to: TopicRegion): void {
    for (const parcel of this.#parcels.splice(0)) {
      const { chunk } = parcel;
      if (chunk?.region !== from) {
        this.#parcels.push(parcel);
        continue;
      }
      const moved = to.tryChunk(chunk.lengthBytes);
      this.#chunkBytes -= chunk.occupiedBytes;
      if (moved !== undefined) {
        to.write(moved, from.view(chunk));
        this.#chunkBytes += moved.occupiedBytes;
        this.#parcels.push({ ...parcel, chunk: moved });
      }
      chunk.drop();
    }
  }

  /** @returns how many were given up. */
  clear(): number {
    const { count } = this;
    while (this.#parcels.length > 0) this.shift();
    return count;
  }
}
