import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { buildVariant } from '../transform/build.js';
import { BUGS } from './bugs.js';
import { searchReduced } from './explore/dpor.js';
import { execute, type Run, replay } from './explore/execution.js';
import { dependent } from './explore/op.js';
import type { Scenario } from './explore/scenario.js';
import { chooserOf, randomFrom, searchBounded, searchRandom } from './explore/search.js';
import { decodeSchedule, encodeSchedule, tableOf } from './explore/table.js';
import { again, scenariosOf } from './plan.js';
import type { Program } from './scenarios/toys.js';

const TOYS = 'test/proof/interleavings/scenarios/toys.ts';
const { toy } = (await buildVariant({ roots: [TOYS] }).load(TOYS)) as {
  toy: (programs: Program, mortal?: number) => Scenario;
};

/** Equal for two runs exactly when they differ in the order of independent steps alone. */
function classOf({ world }: Run): string {
  const { trace } = world;
  const counts: number[] = [];
  const names = trace.map(({ party }) => {
    counts[party] = (counts[party] ?? 0) + 1;
    return `${party}.${counts[party]}`;
  });
  const ordered: string[] = [];
  for (const [i, b] of trace.entries()) {
    for (const [j, a] of trace.slice(0, i).entries()) {
      if (a.party !== b.party && dependent(a.op, a.party, b.op, b.party)) {
        ordered.push(`${names[j]}<${names[i]}`);
      }
    }
  }
  return [world.failure?.message ?? '', ...[...names].sort(), ...[...ordered].sort()].join(' ');
}

/** A program that a seed makes. */
function randomProgram(seed: number): { programs: Program; mortal: number } {
  const random = randomFrom(seed);
  const below = (n: number): number => Math.floor(random() * n);
  const parties = 2 + below(2);
  const programs = Array.from({ length: parties }, () =>
    Array.from({ length: 1 + below(parties === 2 ? 4 : 3) }, () => {
      const kind = '++--!?'[below(6)] as string;
      return `${kind}${kind === '!' ? below(parties) : below(2)}`;
    }),
  );
  // A deadlock ends a run at once; whether somebody could still die then is no question of order.
  const waits = programs.flat().some((instruction) => instruction.startsWith('?'));
  return { programs, mortal: waits || below(2) === 0 ? -1 : below(parties) };
}

const PROGRAMS = 120;

describe('the reduced search', () => {
  // Goal: it leaves out no class of schedules, deadlocks and deaths included.
  // Method: random small programs; the classes that it finds are those of all schedules.
  it('finds every class of schedules that the unreduced search finds', () => {
    let reduced = 0;
    let unreduced = 0;
    for (let seed = 1; seed <= PROGRAMS; seed++) {
      const { programs, mortal } = randomProgram(seed);
      const all = new Set<string>();
      const found = new Set<string>();
      // A deadlock is a failure, which ends a search: here it is one of the classes.
      unreduced += everything(toy(programs, mortal), all, searchAllSchedules);
      reduced += everything(toy(programs, mortal), found, searchReduced);
      assert.deepEqual([...found].sort(), [...all].sort(), JSON.stringify({ seed, programs }));
    }
    assert.ok(reduced * 3 < unreduced, `${reduced} schedules for ${unreduced}`);
  });

  it('needs one schedule where nothing depends on anything', () => {
    const outcome = searchReduced(
      toy([
        ['+0', '+0'],
        ['+1', '+1'],
        ['+2', '+2'],
      ]),
    );
    assert.equal(outcome.schedules, 1);
    assert.ok(outcome.complete);
  });
});

function searchAllSchedules(scenario: Scenario, limits: { onRun: (run: Run) => void }): void {
  searchBounded(scenario, Number.POSITIVE_INFINITY, { ...limits, continues: true });
}

function everything(
  scenario: Scenario,
  classes: Set<string>,
  search: (scenario: Scenario, limits: { onRun: (run: Run) => void; continues: true }) => unknown,
): number {
  let runs = 0;
  const onRun = (run: Run): void => {
    runs++;
    classes.add(classOf(run));
  };
  search(scenario, { onRun, continues: true });
  return runs;
}

describe('schedules', () => {
  it('counts those of two independent parties as one does by hand', () => {
    const two = toy([
      ['+0', '+0'],
      ['+1', '+1'],
    ]);
    // Two steps and the exit each: 6 choose 3.
    assert.equal(searchBounded(two, Number.POSITIVE_INFINITY).schedules, 20);
    // One after the other.
    assert.equal(searchBounded(two, 0).schedules, 2);
  });

  it('are had again by their seed and by their text', () => {
    const scenario = toy([['+0', '-1', '+0'], ['+1', '-0'], ['?'], ['!2']], 0);
    for (let seed = 1; seed <= 50; seed++) {
      const first = execute(scenario, chooserOf(seed));
      const text = encodeSchedule(first.schedule);
      assert.deepEqual(again(scenario, seed).schedule, first.schedule);
      assert.equal(tableOf(again(scenario, text)), tableOf(first));
      assert.deepEqual(decodeSchedule(text), first.schedule);
    }
  });

  it('are refused by a build that they do not fit', () => {
    assert.throws(() => replay(toy([['?'], ['!0']]), [0, 0]), /does not fit/);
  });
});

describe('a failure', () => {
  it('is shown as a table: party, operation, word, value, file and line', async () => {
    const bug = BUGS.find(({ name }) => name === 'tail before payload');
    assert.ok(bug !== undefined);
    const [ring] = await scenariosOf('ring', [bug.edit]);
    assert.ok(ring !== undefined);
    const { failure } = searchRandom(ring, 1, { schedulesMax: 500 });
    assert.ok(failure !== undefined);
    const table = tableOf(failure);
    assert.match(table, /^schedule [0-9x,]+$/m);
    assert.match(table, /^party +operation +word +value +where$/m);
    assert.match(
      table,
      /^producer +atomic store +producer\.tail +\d+ +src\/ring\/producer\.ts:\d+ +Atomics\.store/m,
    );
  });
});
