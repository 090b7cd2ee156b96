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
  readonly #waiters: Waiters = new Waiters();
  readonly #turns: Turns = new Turns();
  #ended = false;

  constructor(receiver: Receiver, spinner: Spinner, options: RecordWaitsOptions) {
    this.#receiver = receiver;
    this.#spinner = spinner;
    this.#options = options;
  }

  get waiting(): boolean {
    return this.#waiters.count > 0;
  }

  /** `true` when messages wait, `false` at the end; rejects as `atEnd` throws. */
  readable(signal: AbortSignal | undefined): Promise<boolean> {
    try {
      if (signal?.aborted) return Promise.reject(signal.reason);
      if (this.turnIsOver()) {
        return this.#turns.next().then(() => this.readable(signal));
      }
      this.#receiver.gather();
      const now = this.#state();
      if (now !== undefined) return now ? TRUE : FALSE;
      const budget = this.#spinner.budget();
      if (budget > 0) {
        const came = this.#receiver.spin(budget);
        this.#spinner.report(came);
        if (came) return TRUE;
      }
      const result = this.#waiters.wait(this.#attempt, signal);
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
      return this.#waiters.count > 0 && this.#receiver.available() && this.serve();
    } catch {
      return false;
    }
  }

  /** The peer rang. @returns whether somebody who waited was served. */
  serve(): boolean {
    this.#turns.restart();
    const served = this.#waiters.serve();
    if (this.#waiters.count > 0) this.#sleep();
    else this.#receiver.awake();
    return served;
  }

  /** The channel ended: what was published is still there to be read; then `atEnd` decides. */
  end(error: unknown): void {
    this.#ended = true;
    this.#waiters.serve();
    this.#waiters.failAll(error);
  }

  readonly #attempt = (): boolean | undefined => {
    try {
      return this.#state();
    } catch (error) {
      throw this.#options.failed(error);
    }
  };

  #state(): boolean | undefined {
    if (this.#receiver.available()) return true;
    if (!this.#options.atEnd()) return undefined;
    // The peer published its last before it said that it closes: look once more.
    return this.#receiver.available();
  }

  /** Announces, looks once more, and leaves the rest to the doorbell. */
  #sleep(): void {
    if (this.#ended) {
      this.#waiters.serve();
      return;
    }
    this.#receiver.announceSleep();
    this.#waiters.serve();
    if (this.#waiters.count === 0) this.#receiver.awake();
  }
}
