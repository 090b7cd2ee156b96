// One run of a scenario under a schedule.
import { now } from './now.js';
import type { Scenario } from './scenario.js';
import { World } from './world.js';

/** Which of the enabled actors goes on; -1: the run is given up. */
export type Choose = (enabled: readonly number[], world: World) => number;

export interface Run {
  readonly world: World;
  /** The actors in the order in which they went on: by it the run is done again. */
  readonly schedule: readonly number[];
  /** Given up by whoever chose. */
  readonly abandoned: boolean;
}

/** Runs a scenario to its end, to its first failure, or until it is given up. */
export function execute(scenario: Scenario, choose: Choose): Run {
  // Errors are a channel's usual end, and their stacks would cost more than its steps.
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return run(scenario, choose);
  } finally {
    Error.stackTraceLimit = limit;
  }
}

function run(scenario: Scenario, choose: Choose): Run {
  const world = new World();
  const check = now(scenario.setUp(world), scenario.name) as () => unknown;
  const schedule: number[] = [];
  world.start();
  for (;;) {
    const enabled = world.failure === undefined ? world.enabled() : [];
    if (enabled.length === 0 || world.failure !== undefined) break;
    const actor = choose(enabled, world);
    if (actor < 0) return { world, schedule, abandoned: true };
    schedule.push(actor);
    world.step(actor);
  }
  if (world.failure === undefined) world.finish(check);
  return { world, schedule, abandoned: false };
}

/** Runs a schedule again, this time with the stacks of errors. */
export function replay(scenario: Scenario, schedule: readonly number[]): Run {
  let at = 0;
  return run(scenario, (enabled) => {
    const actor = schedule[at++] ?? (enabled[0] as number);
    if (!enabled.includes(actor)) throw new Error('the schedule does not fit this build');
    return actor;
  });
}
