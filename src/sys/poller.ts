// The one epoll descriptor of this environment (main thread or worker), watched by Node's loop.
//
// Everything that ukshm waits for is a descriptor in it. A callback may close descriptors and open
// others with the same numbers while a batch of events is still being handed out: an event of a
// watch that is younger than the batch is skipped; epoll is level-triggered and will say it again.
import { EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD } from '../abi/epoll.js';
import { addon } from './addon.js';
import { check } from './memory.js';

const EVENTS_PER_BATCH = 256;

interface Watch {
  readonly callback: (events: number) => void;
  readonly batch: number;
}

export class Poller {
  readonly #epoll: number;
  readonly #watcher: object;
  readonly #watches: Map<number, Watch> = new Map();
  readonly #events: Int32Array = new Int32Array(EVENTS_PER_BATCH * 2);
  #deferred: (() => void)[] = [];
  #batch = 0;
  #refs = 0;

  constructor() {
    this.#epoll = check(addon.epollCreate1(EPOLL_CLOEXEC), 'epoll_create1');
    const watcher = addon.watch(this.#epoll, () => this.#dispatch());
    if (typeof watcher === 'number') throw new Error('uv_poll_init failed');
    this.#watcher = watcher;
  }

  /** Calls back whenever `fd` has one of `events` (or an error or hang-up, always). */
  watch(fd: number, events: number, callback: (events: number) => void): void {
    check(addon.epollCtl(this.#epoll, EPOLL_CTL_ADD, fd, events), 'epoll_ctl');
    this.#watches.set(fd, { callback, batch: this.#batch });
  }

  /** Changes which events are reported. */
  change(fd: number, events: number): void {
    check(addon.epollCtl(this.#epoll, EPOLL_CTL_MOD, fd, events), 'epoll_ctl');
  }

  /** Ends a watch; call before the descriptor is closed. */
  unwatch(fd: number): void {
    if (this.#watches.delete(fd)) addon.epollCtl(this.#epoll, EPOLL_CTL_DEL, fd, 0);
  }

  /**
   * For a watch's callback: calls back in the same turn of the event loop, behind the microtasks
   * that this batch of events brings about. What is not urgent does not delay these.
   */
  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  /** Each ref keeps the event loop alive until its unref. */
  ref(): void {
    this.#refs++;
    if (this.#refs === 1) addon.keepAlive(this.#watcher, true);
  }

  unref(): void {
    this.#refs--;
    if (this.#refs === 0) addon.keepAlive(this.#watcher, false);
  }

  /** @returns whether to be called once more, behind the microtasks. */
  #dispatch(): boolean {
    if (this.#deferred.length > 0) {
      const deferred = this.#deferred;
      this.#deferred = [];
      for (const callback of deferred) callback();
      return false;
    }
    this.#batch++;
    const count = addon.epollWait(this.#epoll, this.#events);
    for (let i = 0; i < count; i++) {
      const watch = this.#watches.get(this.#events[i * 2] as number);
      if (watch === undefined || watch.batch === this.#batch) continue;
      watch.callback(this.#events[i * 2 + 1] as number);
    }
    return this.#deferred.length > 0;
  }
}

let shared: Poller | undefined;

/** The poller of this environment, made at its first use. */
export function poller(): Poller {
  shared ??= new Poller();
  return shared;
}
