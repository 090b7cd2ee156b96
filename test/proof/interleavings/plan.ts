// What is searched, how, and for how long; and what came of it.
import { buildVariant } from '../transform/build.js';
import type { Edit } from '../transform/sources.js';
import { searchReduced } from './explore/dpor.js';
import { execute, type Run, replay } from './explore/execution.js';
import type { Scenario } from './explore/scenario.js';
import { chooserOf, type Outcome, searchBounded, searchRandom } from './explore/search.js';
import { decodeSchedule, tableOf } from './explore/table.js';

const ALL = 'test/proof/interleavings/scenarios/all.ts';

/** What that exports, by the modules below scenarios/. */
export const MODULES = ['ring', 'channel', 'request', 'forward', 'latest', 'topic'] as const;
export type ModuleName = (typeof MODULES)[number];

const PREEMPTIONS = 2;

export interface Budget {
  /** Of each search. */
  readonly milliseconds: number;
  /** Of the reduced search through a small scenario, which comes to its end. */
  readonly smallMilliseconds?: number;
  readonly randomMax?: number;
  readonly firstSeed: number;
}

/** One search through one scenario. */
export interface Result {
  readonly scenario: string;
  readonly search: 'reduced' | 'two preemptions' | 'random';
  readonly outcome: Outcome;
  readonly seconds: number;
}

/** The scenarios of a module, in a build with or without a planted bug. */
export async function scenariosOf(
  module: ModuleName,
  edits: readonly Edit[] = [],
): Promise<Scenario[]> {
  const build = buildVariant({ roots: [ALL], edits });
  return (await build.load(ALL))[module] as Scenario[];
}

/** All that is searched in one scenario; up to the first failure. */
export function* searchAll(scenario: Scenario, budget: Budget): Generator<Result, void, void> {
  const { milliseconds, smallMilliseconds = milliseconds, randomMax, firstSeed } = budget;
  const until = (duration: number = milliseconds): { deadlineMs: number } => ({
    deadlineMs: performance.now() + duration,
  });
  const reducedMilliseconds = scenario.small === true ? smallMilliseconds : milliseconds;
  const searches = {
    reduced: () => searchReduced(scenario, until(reducedMilliseconds)),
    'two preemptions': () => searchBounded(scenario, PREEMPTIONS, until()),
    random: () =>
      searchRandom(scenario, firstSeed, {
        ...until(),
        ...(randomMax === undefined ? {} : { schedulesMax: randomMax }),
      }),
  };
  for (const search of ['reduced', 'two preemptions', 'random'] as const) {
    const start = performance.now();
    const outcome = searches[search]();
    const seconds = (performance.now() - start) / 1000;
    yield { scenario: scenario.name, search, outcome, seconds };
    if (outcome.failure !== undefined) return;
  }
}

/** Runs the schedule of a seed, or one that was printed. */
export function again(scenario: Scenario, seedOrSchedule: number | string): Run {
  if (typeof seedOrSchedule === 'number') return execute(scenario, chooserOf(seedOrSchedule));
  return replay(scenario, decodeSchedule(seedOrSchedule));
}

/** A failure, for people: how to have it again, and what led to it. */
export function explain(result: Result, scenarios: readonly Scenario[]): string {
  const { scenario, outcome } = result;
  if (outcome.failure === undefined) return '';
  const seed = outcome.seed === undefined ? '' : `seed ${outcome.seed} of `;
  const again = scenarios.find(({ name }) => name === scenario);
  const { failure } = outcome;
  const shown = again === undefined ? failure : replay(again, failure.schedule);
  return `${seed}'${scenario}'\n${tableOf(shown)}`;
}

/** One line of the report. */
export function lineOf({ scenario, search, outcome, seconds }: Result): string {
  const { schedules, redundant, complete, steps, failure, seed } = outcome;
  const what = failure !== undefined ? 'FAILED' : complete ? 'all' : 'some';
  const seeds = seed === undefined ? '' : `, seeds to ${seed}`;
  const more = redundant > 0 ? ` and ${redundant} redundant` : '';
  const perStep = (seconds * 1e6) / Math.max(1, steps);
  return (
    `${scenario.padEnd(34)} ${search.padEnd(16)} ${what.padEnd(6)} ${String(schedules).padStart(9)} schedules` +
    `${more}, ${steps} steps, ${seconds.toFixed(1)} s (${perStep.toFixed(1)} µs a step)${seeds}`
  );
}
