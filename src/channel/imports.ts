// Regions of third processes that are mapped here because the peer forwards messages that lie in
// them. By the peer's numbers; 0 is its own outbox and never one of these.
import { peerMisbehaved } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';

interface Imported {
  readonly mapping: Mapping;
  /** Messages of it that this side holds. */
  held: number;
  dropped: boolean;
}

export class Imports {
  readonly #regions: Map<number, Imported> = new Map();

  get count(): number {
    return this.#regions.size;
  }

  /** From now on the peer's messages may lie in this region. */
  add(region: number, mapping: Mapping): void {
    this.#regions.set(region, { mapping, held: 0, dropped: false });
  }

  has(region: number): boolean {
    return this.#regions.has(region);
  }

  /** The memory of a region that messages may lie in. @throws `ERR_UKSHM_PEER_MISBEHAVED`. */
  mapping(region: number): Mapping {
    const imported = this.#regions.get(region);
    if (imported === undefined || imported.dropped) {
      throw peerMisbehaved(`a message in region ${region}, which is not imported`);
    }
    return imported.mapping;
  }

  /** No more messages of this region come: unmap it behind the last one that is held. */
  drop(region: number): void {
    const imported = this.#regions.get(region);
    if (imported === undefined) return;
    imported.dropped = true;
    if (imported.held === 0) this.#unmap(region, imported);
  }

  hold(region: number): void {
    const imported = this.#regions.get(region);
    if (imported !== undefined) imported.held++;
  }

  release(region: number): void {
    const imported = this.#regions.get(region);
    if (imported === undefined) return;
    imported.held--;
    if (imported.dropped && imported.held === 0) this.#unmap(region, imported);
  }

  close(): void {
    for (const { mapping } of this.#regions.values()) mapping.close();
    this.#regions.clear();
  }

  #unmap(region: number, imported: Imported): void {
    this.#regions.delete(region);
    imported.mapping.close();
  }
}
