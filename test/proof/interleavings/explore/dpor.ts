// Depth-first search that leaves out schedules which differ only in the order of independent steps:
// source-set DPOR with sleep sets (Abdulla, Aronis, Jonsson, Sagonas: Optimal dynamic partial order
// reduction, POPL 2014, algorithm 1). Each run starts from the beginning; what is known of the places
// where it may branch is kept between runs.
//
// Two steps race when they are dependent, belong to different actors, and nothing between them orders
// them. For each race, at the place of its first step, one of those is tried that can begin a run in
// which the second comes first.
import { execute } from './execution.js';
import { dependent, type Op } from './op.js';
import type { Scenario } from './scenario.js';
import { emptyOutcome, type Limits, note, type Outcome } from './search.js';
import type { Event, World } from './world.js';

interface Place {
  readonly enabled: readonly number[];
  /** What each actor was about to do. */
  readonly pending: readonly (Op | undefined)[];
  /** Actors whose step here leads to nothing new. */
  readonly sleep: Set<number>;
  /** Actors that are to be tried here. */
  readonly backtrack: Set<number>;
  chosen: number;
}

/** Tries one schedule of each class of equal ones, up to the limits. */
export function searchReduced(scenario: Scenario, limits: Limits = {}): Outcome {
  const outcome = emptyOutcome();
  const places: Place[] = [];
  for (;;) {
    const known = places.length;
    let depth = 0;
    const run = execute(scenario, (enabled, world) => {
      const place = places[depth] ?? arrive(places.at(-1), enabled, world);
      if (depth === places.length) places.push(place);
      depth++;
      return place.chosen;
    });
    if (run.abandoned) places.pop();
    findRaces(run.world.trace, run.world.actorCount, places, Math.max(0, known - 1));
    if (note(outcome, run, limits)) return outcome;
    if (!backtrack(places)) break;
  }
  outcome.complete = true;
  return outcome;
}

function arrive(before: Place | undefined, enabled: readonly number[], world: World): Place {
  const pending: (Op | undefined)[] = [];
  for (let actor = 0; actor < world.actorCount; actor++) pending.push(world.pendingOf(actor));
  const sleep = new Set<number>();
  if (before !== undefined) {
    const done = before.pending[before.chosen] as Op;
    for (const actor of before.sleep) {
      const op = before.pending[actor];
      if (op !== undefined && !dependent(op, actor, done, before.chosen)) sleep.add(actor);
    }
  }
  const chosen = enabled.find((actor) => !sleep.has(actor)) ?? -1;
  return { enabled: [...enabled], pending, sleep, backtrack: new Set([chosen]), chosen };
}

/** Back to the last place where something is left to be tried. */
function backtrack(places: Place[]): boolean {
  for (let place = places.at(-1); place !== undefined; place = places.at(-1)) {
    place.sleep.add(place.chosen);
    for (const actor of place.backtrack) {
      if (place.sleep.has(actor)) continue;
      place.chosen = actor;
      return true;
    }
    places.pop();
  }
  return false;
}

/** Finds the races of steps from `first` on with those before them. */
function findRaces(trace: readonly Event[], actors: number, places: Place[], first: number): void {
  /** For each step: the last one of each actor that comes before it in every equal schedule, plus 1. */
  const clocks: Int32Array[] = [];
  const lastOf = new Int32Array(actors).fill(-1);
  for (const [i, { party, op }] of trace.entries()) {
    const own = lastOf[party] as number;
    const clock = own < 0 ? new Int32Array(actors) : (clocks[own] as Int32Array).slice();
    for (let j = i - 1; j >= 0; j--) {
      const other = trace[j] as Event;
      if ((clock[other.party] as number) > j || other.party === party) continue;
      if (!dependent(op, party, other.op, other.party)) continue;
      if (i >= first) tryReverse(trace, clocks, places, j, i, clock);
      const theirs = clocks[j] as Int32Array;
      for (let k = 0; k < actors; k++) {
        if ((theirs[k] as number) > (clock[k] as number)) clock[k] = theirs[k] as number;
      }
    }
    clock[party] = i + 1;
    clocks.push(clock);
    lastOf[party] = i;
  }
}

/** Steps `j` and `i` race: has a run tried, from the place of `j` on, in which `i` comes first. */
function tryReverse(
  trace: readonly Event[],
  clocks: readonly Int32Array[],
  places: readonly Place[],
  j: number,
  i: number,
  clockOfI: Int32Array,
): void {
  const place = places[j];
  if (place === undefined) return;
  const actorOfJ = (trace[j] as Event).party;
  // What does not depend on `j`, and at its end the actor of `i`: who can begin that?
  const between: number[] = [];
  for (let k = j + 1; k < i; k++) {
    if (((clocks[k] as Int32Array)[actorOfJ] as number) <= j) between.push(k);
  }
  const initials: number[] = [];
  const seen = new Set<number>();
  for (const k of [...between, i]) {
    const actor = (trace[k] as Event).party;
    if (seen.has(actor)) continue;
    seen.add(actor);
    const clock = k === i ? clockOfI : (clocks[k] as Int32Array);
    const follows = between.some((b) => b < k && (clock[(trace[b] as Event).party] as number) > b);
    if (!follows) initials.push(actor);
  }
  if (initials.some((actor) => place.backtrack.has(actor))) return;
  const able = initials.find((actor) => place.enabled.includes(actor));
  if (able !== undefined) place.backtrack.add(able);
}
