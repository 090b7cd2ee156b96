// A party: a process of the scenario, with an event loop as Node has it. Its code runs until it
// announces a step; between two steps nobody else sees what it does.
//
//     main → jobs → (wait for events → callbacks → jobs → deferred callbacks → jobs) … → exit
import { EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../../../../src/abi/epoll.js';
import { current, type Running } from './current.js';
import { call, type Op } from './op.js';
import { run, Promise as SteppedPromise, type Steps } from './promise.js';
import type { World } from './world.js';

interface Watch {
  events: number;
  readonly callback: (events: number) => unknown;
  readonly batch: number;
}

interface Timer {
  readonly at: number;
  readonly callback: () => unknown;
  readonly alive: boolean;
}

export class Party implements Running {
  readonly index: number;
  readonly name: string;
  readonly jobs: (() => unknown)[] = [];
  readonly rejections: SteppedPromise[] = [];
  readonly world: World;
  pending: Op | undefined = undefined;
  doing: Op | undefined = undefined;
  races = false;
  finished = false;
  dead = false;
  /** What keeps it from ending. */
  refs = 0;
  readonly watches: Map<number, Watch> = new Map();
  readonly turns: (() => unknown)[] = [];
  readonly timers: Set<Timer> = new Set();
  deferred: (() => unknown)[] = [];
  #batch = 0;
  readonly #steps: Steps;

  constructor(world: World, index: number, name: string, main: () => unknown) {
    this.world = world;
    this.index = index;
    this.name = name;
    this.#steps = this.#life(main);
  }

  /** Does what it announced, and goes on to the next announcement. */
  advance(): void {
    current.party = this;
    this.doing = this.pending;
    this.pending = undefined;
    const { done } = this.#steps.next();
    if (done) this.finished = true;
  }

  get over(): boolean {
    return this.finished || this.dead;
  }

  watch(fd: number, events: number, callback: (events: number) => unknown): void {
    this.watches.set(fd, { events, callback, batch: this.#batch });
  }

  /** When it is called back next for time alone. */
  get nextTimer(): number {
    return Math.min(...[...this.timers].map(({ at }) => at));
  }

  *#life(main: () => unknown): Steps<void> {
    const result = yield* run(main());
    const ended = SteppedPromise.resolve(result);
    ended.react((ok, error) => failing(ok, error));
    yield* this.#runJobs();
    while (!ended.settled || this.refs > 0 || this.turns.length > 0 || this.#isAwaited()) {
      this.pending = call('wait', 1 << this.index, -1, () => this.#hasEvents());
      yield;
      this.world.races?.received(this.index);
      yield* this.#turn();
    }
    this.pending = call('exit', this.world.peersOf(this));
    yield;
    this.world.hangUp(this);
  }

  *#turn(): Steps<void> {
    this.#batch++;
    for (const timer of this.timers) {
      if (timer.at > this.world.nowMs) continue;
      this.timers.delete(timer);
      yield* run(timer.callback());
      yield* this.#runJobs();
    }
    for (const [fd, events] of this.#events()) {
      const watch = this.watches.get(fd);
      if (watch !== undefined && watch.batch !== this.#batch) yield* run(watch.callback(events));
    }
    yield* this.#runJobs();
    const { deferred } = this;
    this.deferred = [];
    for (const callback of deferred) yield* run(callback());
    yield* this.#runJobs();
    for (const callback of this.turns.splice(0)) {
      yield* run(callback());
      yield* this.#runJobs();
    }
  }

  *#runJobs(): Steps<void> {
    for (let job = this.jobs.shift(); job !== undefined; job = this.jobs.shift()) yield* run(job());
  }

  #isAwaited(): boolean {
    for (const { alive } of this.timers) if (alive) return true;
    return false;
  }

  #hasEvents(): boolean {
    if (this.turns.length > 0 || this.deferred.length > 0) return true;
    return this.nextTimer <= this.world.nowMs || this.#events().length > 0;
  }

  #events(): [number, number][] {
    const events: [number, number][] = [];
    for (const [fd, watch] of this.watches) {
      const always = EPOLLHUP;
      const ready = this.world.readiness(fd) & (watch.events | always);
      if (ready !== 0) events.push([fd, ready]);
    }
    return events;
  }
}

// biome-ignore lint/correctness/useYield: a job that only fails.
function* failing(ok: boolean, error: unknown): Steps<void> {
  if (!ok) throw error;
}

/** What epoll would say of a socket. */
export function socketReadiness(waiting: number, hungUp: boolean, full: boolean): number {
  let events = 0;
  if (waiting > 0 || hungUp) events |= EPOLLIN;
  if (hungUp) events |= EPOLLRDHUP | EPOLLHUP;
  if (!full) events |= EPOLLOUT;
  return events;
}
