// What a scenario is made of. A scenario is an ordinary module below scenarios/; it is turned together
// with the product, so whatever it does with shared memory is a step, too.
import type { Mapping } from '../../../../src/memory/mapping.js';
import { Mapping as PartyMapping } from '../stubs/mapping.js';
import { current } from './current.js';
import type { Memory } from './memory.js';
import { call } from './op.js';
import type { Party } from './party.js';
import type { Steps } from './promise.js';
import { type World, world } from './world.js';

/** What the explorer runs. */
export interface Scenario {
  readonly name: string;
  /** Its reduced search comes to an end within some minutes; the long form gives it that time. */
  readonly small?: boolean;
  /**
   * Sets one run up: memories, parties, who may die.
   * @returns what judges the run at its end.
   */
  readonly setUp: (world: World) => () => unknown;
}

/** A doorbell without a socket, for scenarios of the rings alone: of the one party, rung by the other. */
export class Bell {
  readonly #owner: Party;
  readonly #other: Party;
  #count = 0;
  /** How often it was rung. */
  rings = 0;

  constructor(owner: Party, other: Party) {
    this.#owner = owner;
    this.#other = other;
    world.link(owner, other);
  }

  *ring(): Steps<void> {
    current.party.pending = call('ring', 1 << this.#owner.index);
    yield;
    world.races?.sent(current.party.index, this.#owner.index);
    this.#count++;
    this.rings++;
  }

  /** Waits until it was rung, and takes all rings; or until the other has ended: then `false`. */
  *wait(): Steps<boolean> {
    const isEnabled = (): boolean => this.#count > 0 || this.#other.over;
    current.party.pending = call('wait', 1 << this.#owner.index, -1, isEnabled);
    yield;
    world.races?.received(current.party.index);
    const rung = this.#count > 0;
    this.#count = 0;
    return rung;
  }
}

/** One party's mapping of a memory: call it in that party. */
export function map(memory: Memory): Mapping {
  return new PartyMapping(memory) as unknown as Mapping;
}
