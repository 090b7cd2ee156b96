// Small programs for the tests of the explorer itself: a few parties, each a list of instructions on
// three shared words, a semaphore for each party, and perhaps a death.

import type { Party } from '../explore/party.js';
import type { Scenario } from '../explore/scenario.js';
import { Bell } from '../explore/scenario.js';

/** `+0` stores to word 0, `-1` loads word 1, `!2` rings party 2, `?` waits until rung. */
export type Program = readonly (readonly string[])[];

export function toy(programs: Program, mortal: number = -1): Scenario {
  return {
    name: 'toy',
    setUp: (world) => {
      const words = new Int32Array(world.memory('toy', 16).buffer);
      const bells: Bell[] = [];
      const parties: Party[] = [];
      const run = (instructions: readonly string[], party: number): void => {
        for (const instruction of instructions) {
          const target = Number(instruction[1]);
          if (instruction[0] === '+') Atomics.store(words, target, party + 1);
          else if (instruction[0] === '-') Atomics.load(words, target);
          else if (instruction[0] === '!') (bells[target] as Bell).ring();
          else (bells[party] as Bell).wait();
        }
      };
      for (const [i, instructions] of programs.entries()) {
        const party = world.party(`p${i}`, () => run(instructions, i));
        parties.push(party);
        if (i === mortal) world.mayDie(party);
      }
      // Each party's bell; with itself for the other, it waits for rings alone.
      bells.push(...parties.map((party) => new Bell(party, party)));
      return () => {};
    },
  };
}
