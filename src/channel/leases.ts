// What this side has lent to its peer: a private table, one entry a lease, with generations.
//
//     free → lent (lend) → free (release by the peer, or revokeAll when it is gone)
//     prohibited: release of a free lease, or with another generation: the peer misbehaves
import { peerMisbehaved } from '../core/errors.js';
import { RELEASE_SLOTS } from '../memory/outbox-layout.js';

/** What becomes of the lent when it comes back. */
export interface Lent {
  comeBack(): void;
}

export class LeaseTable {
  readonly #lent: (Lent | undefined)[] = [];
  readonly #generations: Uint32Array = new Uint32Array(RELEASE_SLOTS);
  readonly #free: number[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count === RELEASE_SLOTS;
  }

  generation(lease: number): number {
    return this.#generations[lease] as number;
  }

  /** A lease number for `lent`; ask `full` before. */
  lend(lent: Lent): number {
    const lease = this.#free.pop() ?? this.#lent.length;
    this.#lent[lease] = lent;
    this.#count++;
    return lease;
  }

  /** Takes back what the peer releases. @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`. */
  release(lease: number, generation: number): void {
    const lent = this.#lent[lease];
    if (lent === undefined || this.#generations[lease] !== generation) {
      throw peerMisbehaved(`it released lease ${lease}, generation ${generation}: not lent to it`);
    }
    this.#lent[lease] = undefined;
    // The next lease of this number is another one: an old release of it is refused.
    this.#generations[lease] = (generation + 1) >>> 0;
    this.#free.push(lease);
    this.#count--;
    lent.comeBack();
  }

  /** The peer is gone: all that it was lent comes back. */
  revokeAll(): void {
    for (let lease = 0; lease < this.#lent.length; lease++) {
      if (this.#lent[lease] !== undefined) this.release(lease, this.generation(lease));
    }
  }
}
