// Offers to this process, as they come.
//
// A source that has offered something pokes the receiver, which then asks everybody: who pokes, and
// how often, means nothing. From time to time it asks unpoked, because somebody else may sit at the
// name by which it is poked.
import { after, nowMs } from '../sys/clock.js';
import { KeepAlive } from '../sys/keep-alive.js';
import { offerDesk } from '../sys/offers.js';
import { type ClaimOptions, claim } from './claim.js';
import { listReceived, type MachineOffer } from './list.js';
import type { Pages } from './pages.js';

const LOOK_AGAIN_MS = 1000;
/** Between two looks, however often it is poked; longer each time that there is nothing new. */
const PAUSE_MS_MIN = 1;
const PAUSE_MS_MAX = 64;

/** What another process offers to this one. */
export class IncomingOffer {
  /** Who offers. */
  readonly pid: number;
  readonly address: number;
  readonly sizeBytes: number;
  /** What `claim` will allow, as 'rw'. */
  readonly grant: string;
  /** What the source gives up; '': nothing. */
  readonly drop: string;

  /** @internal */
  constructor(offer: MachineOffer) {
    this.pid = offer.sourcePid;
    this.address = offer.address;
    this.sizeBytes = offer.sizeBytes;
    this.grant = offer.grant;
    this.drop = offer.drop;
  }

  /** Claims it, as `claim(pid, address, options)`. */
  claim(options?: ClaimOptions): Promise<Pages> {
    return claim(this.pid, this.address, options);
  }
}

/** How long offers are waited for. */
export interface IncomingOptions {
  /** Ends the iteration: with the signal's reason as its error. */
  readonly signal?: AbortSignal;
}

/**
 * Offers to this process: those that stand, then each new one, once. Keeps the event loop alive
 * while it waits; ends only by `break` or the signal. Starts the answering thread.
 *
 * @throws the signal's reason.
 */
export async function* incomingOffers(
  options: IncomingOptions = {},
): AsyncGenerator<IncomingOffer, void, undefined> {
  const { signal } = options;
  const inbox = new Inbox(signal);
  try {
    for (;;) {
      signal?.throwIfAborted();
      for (const offer of await inbox.look()) yield new IncomingOffer(offer);
      await inbox.poked();
    }
  } finally {
    inbox.close();
  }
}

class Inbox {
  readonly #signal: AbortSignal | undefined;
  readonly #keepAlive: KeepAlive = new KeepAlive();
  readonly #unwatch: () => void;
  #seen: Set<string> = new Set();
  #poked = false;
  #lookedMs = 0;
  #pauseMs: number = PAUSE_MS_MIN;
  #wake: (() => void) | undefined = undefined;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
    this.#unwatch = offerDesk().watch(() => {
      this.#poked = true;
      this.#wake?.();
    });
    this.#keepAlive.start();
  }

  /** The offers that stand and were not there at the last look. */
  async look(): Promise<MachineOffer[]> {
    const wasPoked = this.#poked;
    this.#poked = false;
    this.#lookedMs = nowMs();
    const offers = await listReceived(this.#signal);
    const fresh: MachineOffer[] = [];
    const seen: Set<string> = new Set();
    for (const offer of offers) {
      const key = `${offer.sourcePid} ${offer.serial}`;
      if (!this.#seen.has(key) && !seen.has(key)) fresh.push(offer);
      seen.add(key);
    }
    this.#seen = seen;
    if (fresh.length > 0) this.#pauseMs = PAUSE_MS_MIN;
    else if (wasPoked) this.#pauseMs = Math.min(PAUSE_MS_MAX, 2 * this.#pauseMs);
    return fresh;
  }

  /** Until something may be new. @throws the signal's reason. */
  async poked(): Promise<void> {
    const signal = this.#signal;
    await new Promise<void>((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const aborted = (): void => {
        cancel();
        reject(signal?.reason);
      };
      const done = (): void => {
        cancel();
        signal?.removeEventListener('abort', aborted);
        this.#wake = undefined;
        resolve();
      };
      let cancel = after(LOOK_AGAIN_MS, done);
      signal?.addEventListener('abort', aborted, { once: true });
      this.#wake = () => {
        const restMs = this.#lookedMs + this.#pauseMs - nowMs();
        if (restMs <= 0) {
          done();
          return;
        }
        cancel();
        cancel = after(restMs, done);
        this.#wake = undefined;
      };
      if (this.#poked) this.#wake();
    });
  }

  close(): void {
    this.#unwatch();
    this.#keepAlive.end();
  }
}
