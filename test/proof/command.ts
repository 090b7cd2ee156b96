// `npm run proof -- [--quick] [--seed N] [--only WORD] [--seconds N] [--bug WORD] [--replay SCHEDULE]`:
// searches all scenarios, plants all bugs, and prints a report with figures and seeds.
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { ROOT } from '../house/root.js';
import { BUGS, type Bug } from './bugs.js';
import { searchReduced } from './explore/dpor.js';
import type { Scenario } from './explore/scenario.js';
import { searchBounded, searchRandom } from './explore/search.js';
import { tableOf } from './explore/table.js';
import { again, explain, lineOf, MODULES, scenariosOf, searchAll } from './plan.js';

interface Options {
  readonly quick: boolean;
  readonly firstSeed: number;
  /** A part of a scenario's name. */
  readonly only: string;
  /** Of each search. */
  readonly milliseconds: number;
  readonly bug: string | undefined;
  readonly replay: string | undefined;
}

const QUICK_MS = 1000;
const LONG_MS = 30_000;
const REDUCED_TIMES = 4;
const BUG_SCHEDULES_MAX = 20_000;

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      seed: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
      seconds: { type: 'string' },
      bug: { type: 'string' },
      replay: { type: 'string' },
    },
  });
  const { quick, seed, only, seconds, bug, replay } = values;
  const usual = quick ? QUICK_MS : LONG_MS;
  const milliseconds = seconds === undefined ? usual : Number(seconds) * 1000;
  return { quick, firstSeed: Number(seed), only, milliseconds, bug, replay };
}

function commit(): string {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], {
      cwd: ROOT,
      encoding: 'utf8',
    }).trim();
  } catch {
    return 'no repository';
  }
}

/** Section 1: every interleaving. @returns whether all is well. */
async function interleavings(options: Options): Promise<boolean> {
  let isWell = true;
  for (const module of MODULES) {
    const scenarios = await scenariosOf(module);
    for (const scenario of scenarios) {
      if (!scenario.name.includes(options.only)) continue;
      for (const result of searchAll(scenario, {
        ...options,
        reducedTimes: options.quick ? 1 : REDUCED_TIMES,
      })) {
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
async function plantedBugs(options: Options): Promise<boolean> {
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

async function schedulesUntilCaught(bug: Bug, options: Options): Promise<(number | undefined)[]> {
  const scenario = await scenarioOf(bug);
  const limits = () => ({
    schedulesMax: BUG_SCHEDULES_MAX,
    deadlineMs: performance.now() + options.milliseconds,
  });
  const outcomes = [
    searchRandom(scenario, options.firstSeed, limits()),
    searchBounded(scenario, 2, limits()),
    searchReduced(scenario, limits()),
  ];
  return outcomes.map(({ failure, schedules }) => (failure === undefined ? undefined : schedules));
}

/** Runs one schedule again and prints its table. */
async function replayOne(options: Options, seedOrSchedule: number | string): Promise<boolean> {
  const bug = BUGS.find(({ name }) => options.bug !== undefined && name.includes(options.bug));
  const all: Scenario[] = bug === undefined ? [] : [await scenarioOf(bug)];
  if (bug === undefined) for (const module of MODULES) all.push(...(await scenariosOf(module)));
  const scenario = all.find(({ name }) => name.includes(options.only));
  if (scenario === undefined) throw new Error(`no scenario '${options.only}'`);
  const run = again(scenario, seedOrSchedule);
  console.log(`${scenario.name}: ${tableOf(run)}`);
  return run.world.failure === undefined;
}

async function main(args: readonly string[]): Promise<number> {
  const options = optionsOf(args);
  if (options.replay !== undefined) {
    const { replay } = options;
    const isSeed = /^seed\d+$/.test(replay);
    return (await replayOne(options, isSeed ? Number(replay.slice(4)) : replay)) ? 0 : 1;
  }
  const start = performance.now();
  console.log(
    `ukshm proof${options.quick ? ' --quick' : ''}: commit ${commit()}, seeds from ${options.firstSeed}, ` +
      `Node ${process.versions.node}, ${options.milliseconds / 1000} s a search\n`,
  );
  console.log('1. Every interleaving');
  const well = await interleavings(options);
  console.log('\nPlanted bugs: schedules until each was caught');
  const caught = await plantedBugs(options);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`\n${well && caught ? 'all is well' : 'FAILED'}, ${seconds} s`);
  return well && caught ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
