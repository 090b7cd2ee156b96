// Waiting for what the peer sends, with a bounded share of each turn of the event loop.
import type { Receiver } from './receiver.js';
import type { Spinner } from './spinner.js';
import { Turns } from './turns.js';
import { Waiters } from './waiters.js';

const TRUE: Promise<boolean> = Promise.resolve(true);
const FALSE: Promise<boolean> = Promise.resolve(false);

/** What waits for records ask of their channel. */
export interface RecordWaitsOptions {
  /** With nothing to read: whether nothing more comes; throws if the peer died. */
  readonly atEnd: () => boolean;
  /** Ends the channel for a lie of the peer's; answers what to throw on. */
  readonly failed: (error: unknown) => unknown;
}

export class RecordWaits {
  readonly #receiver: Receiver;
  readonly #spinner: Spinner;
  readonly #options: RecordWaitsOptions;
  /** The channel's consumer. */
  readonly #readers: Waiters = new Waiters();
  /** Whoever awaits replies. */
  readonly #pumps: Waiters = new Waiters();
  readonly #turns: Turns = new Turns();
  #ended = false;

  constructor(receiver: Receiver, spinner: Spinner, options: RecordWaitsOptions) {
    this.#receiver = receiver;
    this.#spinner = spinner;
    this.#options = options;
  }

  /** Whether the channel's consumer waits. */
  get waiting(): boolean {
    return this.#readers.count > 0;
  }

  /** `true` when messages wait, `false` at the end; rejects as `atEnd` throws. */
  readable(signal: AbortSignal | undefined): Promise<boolean> {
    return this.#wait(this.#readers, this.#available, signal);
  }

  /** As `readable`, but for what nobody has seen: also while messages are set aside. */
  fresh(): Promise<boolean> {
    return this.#wait(this.#pumps, this.#fresh, undefined);
  }

  #wait(
    waiters: Waiters,
    attempt: () => boolean | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    try {
      if (signal?.aborted) return Promise.reject(signal.reason);
      if (this.turnIsOver()) {
        return this.#turns.next().then(() => this.#wait(waiters, attempt, signal));
      }
      this.#receiver.gather();
      const now = attempt();
      if (now !== undefined) return now ? TRUE : FALSE;
      const budget = this.#spinner.budget();
      if (budget > 0) {
        const came = this.#receiver.spin(budget);
        this.#spinner.report(came);
        if (came) return TRUE;
      }
      const result = waiters.wait(attempt, signal);
      this.#sleep();
      return result;
    } catch (error) {
      return Promise.reject(this.#options.failed(error));
    }
  }

  /** Whether this channel has had its share of the event loop's turn. Counts a read. */
  turnIsOver(): boolean {
    return this.#turns.over();
  }

  /** The peer may have rung: serves whoever waits for what is there. A lie is left to `serve`. */
  serveNews(): boolean {
    try {
      return this.#sleepers > 0 && this.#receiver.available() && this.serve();
    } catch {
      return false;
    }
  }

  /** The peer rang. @returns whether somebody who waited was served. */
  serve(): boolean {
    this.#turns.restart();
    const served = this.#serve();
    if (this.#sleepers > 0) this.#sleep();
    else this.#receiver.awake();
    return served;
  }

  /** The channel ended: what was published is still there to be read; then `atEnd` decides. */
  end(error: unknown): void {
    this.#ended = true;
    this.#serve();
    this.#pumps.failAll(error);
    this.#readers.failAll(error);
  }

  get #sleepers(): number {
    return this.#readers.count + this.#pumps.count;
  }

  #serve(): boolean {
    const pumped = this.#pumps.serve();
    return this.#readers.serve() || pumped;
  }

  readonly #available = (): boolean | undefined => this.#state(false);
  readonly #fresh = (): boolean | undefined => this.#state(true);

  #state(fresh: boolean): boolean | undefined {
    try {
      if (this.#look(fresh)) return true;
      if (!this.#options.atEnd()) return undefined;
      // The peer published its last before it said that it closes: look once more.
      return this.#look(fresh);
    } catch (error) {
      throw this.#options.failed(error);
    }
  }

  #look(fresh: boolean): boolean {
    return fresh ? this.#receiver.fresh() : this.#receiver.available();
  }

  /** Announces, looks once more, and leaves the rest to the doorbell. */
  #sleep(): void {
    if (this.#ended) {
      this.#serve();
      return;
    }
    this.#receiver.announceSleep();
    this.#serve();
    if (this.#sleepers === 0) this.#receiver.awake();
  }
}
