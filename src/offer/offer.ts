// Offering pages to a process. Nothing changes until it claims them.
import {
  EACCES,
  EEXIST,
  EIDRM,
  EINVAL,
  EMFILE,
  ENOENT,
  ENOSPC,
  EROFS,
  ESRCH,
} from '../abi/errno.js';
import { checkInteger } from '../core/check.js';
import { closedError, invalidArgument, SyscallError, UkshmError } from '../core/errors.js';
import { KeepAlive } from '../sys/keep-alive.js';
import { addOffer, cancelOffer, type OfferEnd, offerDesk, wasClaimed } from '../sys/offers.js';
import { ownPid } from '../sys/process.js';
import { givenAway, Pages, type Run } from './pages.js';
import { type Drop, type Grant, lettersOf, type Terms, termsOf } from './rights.js';

/** The kernel passes so many descriptors at once (SCM_MAX_FD). */
const UNITS_PER_OFFER_MAX = 253;
export const PID_MAX: number = 2 ** 22;

/** Which part is offered, and with which rights. */
export interface OfferRange {
  /** Where it begins, in bytes: a multiple of the unit. Default 0. */
  readonly offset?: number;
  /** How much, in whole units; 0 cancels the offer at this place. Default: to the end. */
  readonly sizeBytes?: number;
}

/** What is granted and dropped, in letters or as flags. */
export type OfferOptions =
  | (OfferRange & { readonly grant: Grant; readonly drop?: Drop; readonly flags?: never })
  | (OfferRange & { readonly flags: number; readonly grant?: never; readonly drop?: never });

/** Pages offered to a process. It keeps the event loop alive while it stands. */
export class Offer {
  /** To whom. */
  readonly pid: number;
  /** By this number, and this process's, the receiver claims it. */
  readonly address: number;
  readonly sizeBytes: number;
  readonly grant: string;
  /** What this process gives up when it is claimed; '': nothing. */
  readonly drop: string;
  /** Why it stands no more, as soon as that is so. */
  readonly ended: Promise<OfferEnd>;
  readonly #serial: number;
  readonly #keepAlive: KeepAlive = new KeepAlive();
  #end: OfferEnd | undefined;

  /** @internal */
  constructor(serial: number, pid: number, pages: Pages, run: Run, terms: Terms) {
    this.pid = pid;
    this.address = pages.address + run.first * pages.unitBytes;
    this.sizeBytes = run.count * pages.unitBytes;
    this.grant = lettersOf(terms.grant);
    this.drop = lettersOf(terms.drop);
    this.#serial = serial;
    if (serial === 0) {
      this.#end = 'cancelled';
      this.ended = Promise.resolve(this.#end);
      return;
    }
    this.#keepAlive.start();
    this.ended = new Promise((resolve) => {
      offerDesk().add(serial, pages, (end) => {
        this.#end = end;
        this.#keepAlive.end();
        resolve(end);
      });
    });
  }

  /** 'standing', or why it stands no more; as of now, even if the event loop was busy. */
  get state(): 'standing' | OfferEnd {
    if (this.#end === undefined) offerDesk().hear();
    return this.#end ?? 'standing';
  }

  /**
   * Takes the offer back. Idempotent; nothing happens to one that was replaced, or whose receiver
   * has ended.
   *
   * @throws UkshmError `ERR_UKSHM_CLAIMED`: it was claimed, and its address is the receiver's now.
   */
  cancel(): void {
    if (this.#end === undefined) {
      cancelOffer(this.address, this.#serial, 0);
      offerDesk().hear();
    }
    if (this.#end === 'claimed') throw claimedError(this.pid, this.address);
  }

  /** As `cancel`, but a claimed offer is no error. */
  [Symbol.dispose](): void {
    if (this.state === 'standing') cancelOffer(this.address, this.#serial, 0);
    offerDesk().hear();
  }

  /** Keeps the event loop alive while the offer stands, as it does from the start. */
  ref(): this {
    this.#keepAlive.ref();
    return this;
  }

  /** Lets the process end although the offer stands; the offer ends with it. */
  unref(): this {
    this.#keepAlive.unref();
    return this;
  }
}

/**
 * Offers whole units to one process, named by its id alone, of whichever user. The first call starts
 * a thread that answers claims, also while this JavaScript is busy. An offer at the address of
 * another takes its place. Never blocks.
 *
 * @param pid - a living process other than this one.
 * @param pages - what `Pages.allocate` or `claim` made.
 * @throws UkshmError `ERR_UKSHM_NO_PROCESS`; `ERR_UKSHM_NOT_UNIT_ALIGNED`; `ERR_UKSHM_NOT_HELD` (a
 * grant that this process does not hold); `ERR_UKSHM_OVERLAP` (with an offer that begins elsewhere);
 * `ERR_UKSHM_NOT_PAGES`; `ERR_UKSHM_CLAIMED` (size 0 behind a claim), `ERR_UKSHM_NOT_OFFERED` (size
 * 0, and nothing stands there); `ERR_UKSHM_CLOSED`; `ERR_UKSHM_LIMIT` (16 384 offers, 1024
 * receivers, 253 units an offer); `ERR_UKSHM_INVALID_ARGUMENT` (contradictory flags and sizes too).
 */
export function offer(pid: number, pages: Pages, options: OfferOptions): Offer {
  checkPid(pid);
  if (!(pages instanceof Pages)) {
    throw new UkshmError(
      'ERR_UKSHM_NOT_PAGES',
      'only what Pages.allocate or claim made can be offered: a region, and what a channel uses of ' +
        'it, is shared as a whole by one descriptor',
    );
  }
  const { offset = 0 } = options;
  const run = pages.run(offset, options.sizeBytes ?? pages.sizeBytes - offset);
  if (run.count === 0) return cancelAt(pid, pages, run);
  const terms = termsOf(options);
  if (run.count > UNITS_PER_OFFER_MAX) {
    const text = `${run.count} units in one offer; ${UNITS_PER_OFFER_MAX} are the most`;
    throw new UkshmError('ERR_UKSHM_LIMIT', `${text}: make several, or use larger units`);
  }
  if (pages.closed) throw closedError('this range of pages');
  // Before the offer stands: its claim must find somebody who answers.
  offerDesk();
  const { grant, drop } = terms;
  const serial = addOffer(pages.address, run.first, run.count, pid, grant, drop);
  if (serial < 0) throw refusal(serial, pid, pages, run, terms);
  const made = new Offer(serial, pid, pages, run, terms);
  // What it replaced hears of it before its owner does anything else.
  offerDesk().hear();
  return made;
}

/** A process id other than this process's. @throws `ERR_UKSHM_INVALID_ARGUMENT`. */
export function checkPid(pid: number): void {
  checkInteger('pid', pid, 1, PID_MAX);
  if (pid === ownPid()) throw invalidArgument('pid', pid, 'another process than this one');
}

/** No process has this number. */
export function noProcess(pid: number): UkshmError {
  return new UkshmError('ERR_UKSHM_NO_PROCESS', `there is no process ${pid}, or it has ended`);
}

function cancelAt(pid: number, pages: Pages, run: Run): Offer {
  const address = pages.address + run.first * pages.unitBytes;
  if (cancelOffer(address, 0, pid) === 0) {
    offerDesk().hear();
    return new Offer(0, pid, pages, run, { grant: 0, drop: 0 });
  }
  if (wasClaimed(pages.address, run.first)) throw claimedError(pid, address);
  throw new UkshmError(
    'ERR_UKSHM_NOT_OFFERED',
    `nothing is offered to process ${pid} at ${address}: there is nothing to cancel`,
  );
}

function claimedError(pid: number, address: number): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_CLAIMED',
    `process ${pid} has claimed what was offered at ${address}: it cannot be taken back`,
  );
}

function refusal(errno: number, pid: number, pages: Pages, run: Run, terms: Terms): UkshmError {
  const refuse = (code: ConstructorParameters<typeof UkshmError>[0], text: string): UkshmError =>
    new UkshmError(code, text);
  switch (errno) {
    case -ENOENT:
      return closedError('this range of pages');
    case -EIDRM:
      return givenAway();
    case -EACCES:
      return refuse(
        'ERR_UKSHM_NOT_HELD',
        `'${lettersOf(terms.grant)}' is more than this process holds of these pages: ` +
          `'${pages.rightsAt(run.first * pages.unitBytes)}'`,
      );
    case -EROFS:
      return refuse(
        'ERR_UKSHM_NOT_HELD',
        "'w' can be granted no more: some of these units were granted without it, or sealed by " +
          'one who had them, and a seal cannot be taken back',
      );
    case -EEXIST:
      return refuse(
        'ERR_UKSHM_OVERLAP',
        'another offer covers some of these units: cancel it first, or offer at its address',
      );
    case -ENOSPC:
      return refuse(
        'ERR_UKSHM_LIMIT',
        '16384 offers stand: wait until some are claimed, or cancel',
      );
    case -EMFILE:
      return refuse('ERR_UKSHM_LIMIT', 'offers to too many processes stand, or no descriptor left');
    case -ESRCH:
    case -EINVAL: // The number of a thread.
      return noProcess(pid);
    default:
      return new SyscallError('pidfd_open', errno, `offering to process ${pid}`);
  }
}
