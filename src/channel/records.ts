// Waiting for what the peer sends, with a bounded share of each turn of the event loop.
import type { Receiver } from './receiver.js';
import type { Spinner } from './spinner.js';
import { Turns } from './turns.js';
import { Waiters } from './waiters.js';

const TRUE: Promise<boolean> = Promise.resolve(true);
const FALSE: Promise<boolean> = Promise.resolve(false);

export class RecordWaits {
  readonly #receiver: Receiver;
  readonly #spinner: Spinner;
  readonly #atEnd: () => boolean;
  readonly #waiters: Waiters = new Waiters();
  readonly #turns: Turns = new Turns();
  #ended = false;

  /** @param atEnd - with nothing to read: whether nothing more comes; throws if the peer died. */
  constructor(receiver: Receiver, spinner: Spinner, atEnd: () => boolean) {
    this.#receiver = receiver;
    this.#spinner = spinner;
    this.#atEnd = atEnd;
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
      const result = this.#waiters.wait(() => this.#state(), signal);
      this.#sleep();
      return result;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Whether this channel has had its share of the event loop's turn. Counts a read. */
  turnIsOver(): boolean {
    return this.#turns.over();
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

  #state(): boolean | undefined {
    if (this.#receiver.available()) return true;
    if (!this.#atEnd()) return undefined;
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
