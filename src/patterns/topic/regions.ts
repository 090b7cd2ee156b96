// The memory of a topic over time: one region, and a fresh one when that is exhausted for too long.
//
// A chunk is never used again while a living subscriber may look at it. So when the region stays
// exhausted, those that hold it up are disconnected, and the topic goes on in another region: what
// they look at stays as it is, in a memory that from then on is theirs alone.
//
//     usable → stalled (no room) → usable (room came back)
//     stalled → renewing (no room for patienceMs) → usable, in a fresh region
//     prohibited: a second renewal while one is under way
import type { Listener } from '../../channel/meeting/listener.js';
import { SharedRegion } from '../../channel/meeting/shared-region.js';
import { after } from '../../sys/clock.js';
import { type TopicChunk, TopicRegion } from './region.js';

/** What the memory asks of its topic. */
export interface RegionsHost {
  /** Reads what the subscribers have released. @returns whether anything was. */
  readonly collect: () => boolean;
  /** No room. */
  readonly onFull: () => void;
  /** No room, for the first time: from now on it counts who releases something. */
  readonly onStall: () => void;
  /** The subscribers hold so much that nothing fits: disconnects those to blame; false: nobody. */
  readonly expel: (current: TopicRegion, retired: ReadonlySet<TopicRegion>) => boolean;
  /** From now on messages lie in `fresh`, and nothing more in `old`. Resolves when all have it. */
  readonly onRenewed: (fresh: TopicRegion, old: TopicRegion) => Promise<void>;
  /** Nothing of `old` is held any more. */
  readonly onRetired: (old: TopicRegion) => void;
  /** There may be room again. */
  readonly onRoom: () => void;
}

export class Regions {
  readonly #listener: Listener;
  readonly #arenaBytes: number;
  readonly #patienceMs: number;
  readonly #host: RegionsHost;
  readonly #retired: Set<TopicRegion> = new Set();
  #current: TopicRegion;
  /** The length that did not fit; 0: everything did. */
  #stalledBytes = 0;
  #cancelPatience: () => void = () => {};
  #renewing = false;
  #closed = false;

  private constructor(
    listener: Listener,
    arenaBytes: number,
    patienceMs: number,
    host: RegionsHost,
    first: TopicRegion,
  ) {
    this.#listener = listener;
    this.#arenaBytes = arenaBytes;
    this.#patienceMs = patienceMs;
    this.#host = host;
    this.#current = first;
  }

  static async create(
    listener: Listener,
    arenaBytes: number,
    patienceMs: number,
    host: RegionsHost,
  ): Promise<Regions> {
    const first = new TopicRegion(await SharedRegion.create(listener, arenaBytes));
    return new Regions(listener, arenaBytes, patienceMs, host, first);
  }

  get current(): TopicRegion {
    return this.#current;
  }

  /** Bytes of all regions, and of the current one that are free. */
  get sizes(): { readonly sharedBytes: number; readonly freeBytes: number } {
    const { totalBytes } = this.#current.shared.layout;
    const sharedBytes = totalBytes * (1 + this.#retired.size);
    return { sharedBytes, freeBytes: this.#current.freeBytes };
  }

  /** A chunk with one hold on it; `undefined` while there is no room. */
  tryChunk(lengthBytes: number): TopicChunk | undefined {
    if (this.#renewing) return undefined;
    let chunk = this.#current.tryChunk(lengthBytes);
    if (chunk === undefined && this.#host.collect()) chunk = this.#current.tryChunk(lengthBytes);
    if (chunk === undefined) this.#stall(lengthBytes);
    else if (this.#stalledBytes > 0) this.#usable();
    return chunk;
  }

  close(): void {
    this.#closed = true;
    this.#usable();
    for (const region of [this.#current, ...this.#retired]) region.shared.close();
    this.#retired.clear();
  }

  #stall(lengthBytes: number): void {
    const before = this.#stalledBytes;
    this.#stalledBytes = Math.max(before, lengthBytes);
    this.#host.onFull();
    if (before > 0 || this.#closed) return;
    this.#host.onStall();
    this.#cancelPatience = after(this.#patienceMs, this.#onPatienceOver);
  }

  #usable(): void {
    this.#stalledBytes = 0;
    this.#cancelPatience();
  }

  readonly #onPatienceOver = (): void => {
    this.#host.collect();
    const chunk = this.#current.tryChunk(this.#stalledBytes);
    if (chunk === undefined) {
      void this.#renew();
      return;
    }
    this.#usable();
    chunk.drop();
    this.#host.onRoom();
  };

  async #renew(): Promise<void> {
    this.#renewing = true;
    try {
      const shared = await SharedRegion.create(this.#listener, this.#arenaBytes);
      this.#host.collect();
      // The program's own loans may be all that is in the way: then it is they that are waited for.
      if (this.#closed || !this.#host.expel(this.#current, this.#retired)) shared.close();
      else await this.#replace(new TopicRegion(shared));
    } catch {
      // No memory for another one: whoever waits tries again, and stalls again.
    }
    this.#renewing = false;
    this.#usable();
    if (!this.#closed) this.#host.onRoom();
  }

  async #replace(fresh: TopicRegion): Promise<void> {
    const old = this.#current;
    this.#current = fresh;
    this.#retired.add(old);
    const renewed = this.#host.onRenewed(fresh, old);
    old.retire(() => {
      if (!this.#retired.delete(old)) return;
      this.#host.onRetired(old);
      old.shared.close();
    });
    await renewed;
  }
}
