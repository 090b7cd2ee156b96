// Every interleaving: searches all scenarios, and plants all bugs.
import type { ProofOptions, Section } from '../section.js';
import { BUGS, type Bug } from './bugs.js';
import { searchReduced } from './explore/dpor.js';
import type { Scenario } from './explore/scenario.js';
import { searchBounded, searchRandom } from './explore/search.js';
import { tableOf } from './explore/table.js';
import { again, explain, lineOf, MODULES, scenariosOf, searchAll } from './plan.js';

const QUICK_SECONDS = 1;
const LONG_SECONDS = 30;
/** None of the small scenarios takes half of it, on a machine of today. */
const SMALL_SECONDS = 900;
const BUG_SCHEDULES_MAX = 20_000;

/** Of each search. */
function millisecondsOf({ quick, seconds }: ProofOptions): number {
  return (seconds ?? (quick ? QUICK_SECONDS : LONG_SECONDS)) * 1000;
}

async function searchScenarios(options: ProofOptions): Promise<boolean> {
  let isWell = true;
  for (const module of MODULES) {
    const scenarios = await scenariosOf(module);
    for (const scenario of scenarios) {
      if (!scenario.name.includes(options.only)) continue;
      const budget = {
        milliseconds: millisecondsOf(options),
        firstSeed: options.firstSeed,
        ...(options.quick ? {} : { smallMilliseconds: SMALL_SECONDS * 1000 }),
      };
      for (const result of searchAll(scenario, budget)) {
        console.log(lineOf(result));
        if (result.outcome.failure === undefined) continue;
        console.log(`\n${explain(result, scenarios)}\n`);
        isWell = false;
      }
    }
  }
  return isWell;
}

/** Whether each planted bug is caught, and after how many schedules of each search. */
async function plantBugs(options: ProofOptions): Promise<boolean> {
  let isWell = true;
  for (const bug of BUGS) {
    if (!bug.name.includes(options.only) && options.only !== '') continue;
    const counts = await schedulesUntilCaught(bug, options);
    if (counts.every((count) => count === undefined)) isWell = false;
    const [random, bounded, reduced] = counts.map((count) =>
      count === undefined ? '-' : `${count}`,
    );
    console.log(
      `${bug.name.padEnd(62)} ${String(random).padStart(6)} random ${String(bounded).padStart(6)} ` +
        `with 2 preemptions ${String(reduced).padStart(6)} reduced`,
    );
  }
  return isWell;
}

async function scenarioOf(bug: Bug): Promise<Scenario> {
  const scenarios = await scenariosOf(bug.scenarios, [bug.edit]);
  const scenario = scenarios.find(({ name }) => name.includes(bug.scenario));
  if (scenario === undefined) throw new Error(`no scenario '${bug.scenario}'`);
  return scenario;
}

async function schedulesUntilCaught(
  bug: Bug,
  options: ProofOptions,
): Promise<(number | undefined)[]> {
  const scenario = await scenarioOf(bug);
  const limits = () => ({
    schedulesMax: BUG_SCHEDULES_MAX,
    deadlineMs: performance.now() + millisecondsOf(options),
  });
  const outcomes = [
    searchRandom(scenario, options.firstSeed, limits()),
    searchBounded(scenario, 2, limits()),
    searchReduced(scenario, limits()),
  ];
  return outcomes.map(({ failure, schedules }) => (failure === undefined ? undefined : schedules));
}

/**
 * Runs one schedule again and prints its table.
 * @param only - a part of the scenario's name
 * @param planted - a part of the name of a planted bug
 * @param what - as it was printed: `seed17` or `1x3,0x2,1`
 * @returns whether all is well.
 */
export async function replayOne(
  only: string,
  planted: string | undefined,
  what: string,
): Promise<boolean> {
  const bug = BUGS.find(({ name }) => planted !== undefined && name.includes(planted));
  if (planted !== undefined && bug === undefined) throw new Error(`no planted bug '${planted}'`);
  const all: Scenario[] = bug === undefined ? [] : [await scenarioOf(bug)];
  if (bug === undefined) for (const module of MODULES) all.push(...(await scenariosOf(module)));
  const scenario = all.find(({ name }) => name.includes(only));
  if (scenario === undefined) throw new Error(`no scenario '${only}'`);
  const run = again(scenario, /^seed\d+$/.test(what) ? Number(what.slice(4)) : what);
  console.log(`${scenario.name}: ${tableOf(run)}`);
  return run.world.failure === undefined;
}

export const interleavings: Section = {
  name: 'interleavings',
  title: 'Every interleaving',
  run: async (options) => {
    console.log(`${millisecondsOf(options) / 1000} s a search`);
    const isWell = await searchScenarios(options);
    console.log('\nPlanted bugs: schedules until each was caught');
    return (await plantBugs(options)) && isWell;
  },
};
