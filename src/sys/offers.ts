// Typed calls on the addon's table of pages and offers, and this environment's ear for it.
// The table is the process's; a thread of the addon answers claims from it (native/offers.h).
import { EPOLLIN } from '../abi/epoll.js';
import { addon } from './addon.js';
import { check } from './memory.js';
import { poller } from './poller.js';

const PAIRS_AT_ONCE = 256;
const NUMBERS_PER_OFFER = 6;
/** Why an offer ended, by the addon's numbers. */
const ENDS = ['', 'claimed', 'cancelled', 'replaced', 'receiver-gone'] as const;

/** Why an offer stands no more. */
export type OfferEnd = 'claimed' | 'cancelled' | 'replaced' | 'receiver-gone';

/** One row of the table: rights are bits (1 read, 2 write, 4 execute). */
export interface OfferRow {
  readonly address: number;
  readonly sizeBytes: number;
  /** Never used twice by a process. */
  readonly serial: number;
  readonly pid: number;
  readonly grant: number;
  readonly drop: number;
}

/** Hands the descriptors of mapped units over to the table; 0 or -errno. */
export function addPages(
  address: number,
  unitBytes: number,
  fds: Int32Array,
  rights: number,
  protection: number,
): number {
  return addon.pagesAdd(address, unitBytes, fds, rights, protection);
}

/** Puts zeros in place of the pages and ends their offers; -EBUSY: lent, -ENOENT. */
export function closePages(address: number): number {
  return addon.pagesClose(address);
}

/** The rights held of all of these units, as bits; -ENOENT for pages that are closed. */
export function pagesRights(address: number, first: number, count: number): number {
  return addon.pagesRights(address, first, count);
}

/** How many units were not given away; -ENOENT for pages that are closed. */
export function unitsHeld(address: number): number {
  return addon.pagesHeld(address);
}

/** Marks units as lent to the kernel (`by` 1) or back (-1); 0, -ENOENT, -EIDRM: given away. */
export function lendUnits(address: number, first: number, count: number, by: 1 | -1): number {
  return addon.pagesLend(address, first, count, by);
}

/** Whether a unit's last offer was claimed. */
export function wasClaimed(address: number, unit: number): boolean {
  return addon.pagesClaimed(address, unit);
}

/**
 * Offers units to a process: a serial, or -ENOENT (closed), -EIDRM (given away), -EACCES (more than
 * is held), -EROFS (sealed), -EEXIST (overlaps), -ENOSPC or -EMFILE (too many), -ESRCH (no such process).
 */
export function addOffer(
  address: number,
  first: number,
  count: number,
  pid: number,
  grant: number,
  drop: number,
): number {
  return addon.offerAdd(address, first, count, pid, grant, drop);
}

/** Ends the offer at an address, if it is this one (0: any) to this process (0: any); or -ENOENT. */
export function cancelOffer(address: number, serial: number, pid: number): number {
  return addon.offerCancel(address, serial, pid);
}

/** All offers of this process that stand, as of one moment. */
export function listOwnOffers(): OfferRow[] {
  let numbers = new Float64Array(64 * NUMBERS_PER_OFFER);
  let count = addon.offersList(numbers);
  while (count * NUMBERS_PER_OFFER > numbers.length) {
    numbers = new Float64Array((count + 64) * NUMBERS_PER_OFFER);
    count = addon.offersList(numbers);
  }
  return Array.from({ length: count }, (_, index) => {
    const row = numbers.subarray(index * NUMBERS_PER_OFFER);
    const [address = 0, sizeBytes = 0, serial = 0, pid = 0, grant = 0, drop = 0] = row;
    return { address, sizeBytes, serial, pid, grant, drop };
  });
}

/** Makes the answering thread ask for credentials as on a kernel without SO_PEERPIDFD; for tests. */
export function challengeAlways(yes: boolean): void {
  addon.offersChallenge(yes);
}

interface Standing {
  readonly keeps: object;
  readonly ended: (end: OfferEnd) => void;
}

/** What this environment hears of the table: ends of its offers, and that there may be new ones. */
export class OfferDesk {
  readonly #standing: Map<number, Standing> = new Map();
  readonly #watchers: Set<() => void> = new Set();
  readonly #pairs: Float64Array = new Float64Array(2 * PAIRS_AT_ONCE);

  /** Starts the thread that answers claims, if it does not run yet. */
  constructor() {
    const fd = check(addon.offersOpen(), 'socket', 'the thread that answers claims did not start');
    poller().watch(fd, EPOLLIN, () => this.hear());
  }

  /** Calls back when the offer ends; until then `keeps`, its memory, is not collected. */
  add(serial: number, keeps: object, ended: (end: OfferEnd) => void): void {
    this.#standing.set(serial, { keeps, ended });
  }

  /** Calls back whenever another process may have offered something; the answer ends that. */
  watch(callback: () => void): () => void {
    this.#watchers.add(callback);
    if (this.#watchers.size === 1) addon.offersWatch(true);
    return () => {
      if (this.#watchers.delete(callback) && this.#watchers.size === 0) addon.offersWatch(false);
    };
  }

  /** Takes what the table has to tell now, rather than in the next turn of the event loop. */
  hear(): void {
    let count: number;
    do {
      count = addon.offersTake(this.#pairs);
      const pairs = this.#pairs.slice(0, 2 * count);
      for (let i = 0; i < count; i++) this.#tell(pairs[2 * i] ?? 0, pairs[2 * i + 1] ?? 0);
    } while (count === PAIRS_AT_ONCE);
  }

  #tell(serial: number, reason: number): void {
    if (serial === 0) {
      for (const watcher of [...this.#watchers]) watcher();
      return;
    }
    const standing = this.#standing.get(serial);
    const end = ENDS[reason] ?? '';
    this.#standing.delete(serial);
    if (end !== '') standing?.ended(end);
  }
}

let shared: OfferDesk | undefined;

/** The desk of this environment, made at its first use: it starts the answering thread. */
export function offerDesk(): OfferDesk {
  shared ??= new OfferDesk();
  return shared;
}
