// Searches through the schedules of a scenario. Each ends at the first failure, with the schedule by
// which that is had again.
import { type Choose, execute, type Run } from './execution.js';
import type { Scenario } from './scenario.js';
import type { World } from './world.js';

export interface Outcome {
  /** Runs to an end, and runs that were given up because an equal one was done before. */
  schedules: number;
  redundant: number;
  steps: number;
  /** All there are were tried. */
  complete: boolean;
  failure: Run | undefined;
  /** Of a random run that failed. */
  seed?: number;
}

export interface Limits {
  readonly schedulesMax?: number;
  /** By performance.now(). */
  readonly deadlineMs?: number;
  /** A failure is one run among others. */
  readonly continues?: boolean;
  /** Told of each run that came to its end. */
  readonly onRun?: (run: Run) => void;
}

export function emptyOutcome(): Outcome {
  return { schedules: 0, redundant: 0, steps: 0, complete: false, failure: undefined };
}

/** Counts a run. @returns whether the search is over. */
export function note(outcome: Outcome, run: Run, limits: Limits): boolean {
  outcome.steps += run.schedule.length;
  if (run.abandoned) outcome.redundant++;
  else outcome.schedules++;
  if (!run.abandoned) limits.onRun?.(run);
  if (run.world.failure !== undefined && !limits.continues) {
    outcome.failure = run;
    return true;
  }
  const { schedulesMax = Number.POSITIVE_INFINITY, deadlineMs = Number.POSITIVE_INFINITY } = limits;
  return outcome.schedules >= schedulesMax || performance.now() > deadlineMs;
}

interface Branch {
  /** What was chosen, what else there was, and what it has cost up to here. */
  chosen: number;
  readonly left: number[];
  readonly preemptions: number;
}

/**
 * All schedules with at most so many preemptions: switches away from a party that could go on, and
 * deaths. Infinity: all schedules there are.
 */
export function searchBounded(
  scenario: Scenario,
  preemptionsMax: number,
  limits: Limits = {},
): Outcome {
  const outcome = emptyOutcome();
  const branches: Branch[] = [];
  for (;;) {
    let depth = 0;
    let last = -1;
    let preemptions = 0;
    const run = execute(scenario, (enabled, world) => {
      const branch = branches[depth] ?? branchAt(enabled, last, preemptions, preemptionsMax, world);
      if (depth === branches.length) branches.push(branch);
      depth++;
      preemptions = branch.preemptions + costOf(branch.chosen, enabled, last, world);
      if (branch.chosen < world.parties.length) last = branch.chosen;
      return branch.chosen;
    });
    if (note(outcome, run, limits)) return outcome;
    while (branches.length > 0 && branches.at(-1)?.left.length === 0) branches.pop();
    const branch = branches.at(-1);
    if (branch === undefined) break;
    branch.chosen = branch.left.pop() as number;
  }
  outcome.complete = true;
  return outcome;
}

function branchAt(
  enabled: readonly number[],
  last: number,
  preemptions: number,
  max: number,
  world: World,
): Branch {
  const affordable = enabled.filter(
    (actor) => preemptions + costOf(actor, enabled, last, world) <= max,
  );
  // Where only deaths are left, they cost nothing.
  const left = affordable.length > 0 ? affordable : [...enabled];
  const goesOn = left.indexOf(last);
  const [chosen] = left.splice(Math.max(goesOn, 0), 1);
  return { chosen: chosen as number, left, preemptions };
}

function costOf(actor: number, enabled: readonly number[], last: number, world: World): number {
  const parties = world.parties.length;
  if (actor >= parties) return enabled.some((other) => other < parties) ? 1 : 0;
  return actor !== last && enabled.includes(last) ? 1 : 0;
}

/** Numbers that follow from a seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The schedule of a seed: some switch at each step, some hardly ever, some kill early, some late. */
export function chooserOf(seed: number): Choose {
  const random = randomFrom(seed);
  const switches = [0.02, 0.1, 0.3, 0.6, 1][Math.floor(random() * 5)] as number;
  const kills = random() * random() * 0.1;
  let last = -1;
  return (enabled, world) => {
    const parties = enabled.filter((actor) => actor < world.parties.length);
    const deaths = enabled.length - parties.length;
    if (parties.length === 0 || (deaths > 0 && random() < kills)) {
      return enabled[parties.length + Math.floor(random() * deaths)] as number;
    }
    if (!parties.includes(last) || random() < switches) {
      last = parties[Math.floor(random() * parties.length)] as number;
    }
    return last;
  };
}

/** Random schedules: those of the seeds from `firstSeed` on. */
export function searchRandom(scenario: Scenario, firstSeed: number, limits: Limits): Outcome {
  const outcome = emptyOutcome();
  for (let seed = firstSeed; ; seed++) {
    const run = execute(scenario, chooserOf(seed));
    outcome.seed = seed;
    if (note(outcome, run, limits)) return outcome;
  }
}
