// Waiting for what the peer releases: room for sends, and the end of a close.
import { nowMs } from '../sys/clock.js';
import type { Sender } from './sender.js';
import type { Spinner } from './spinner.js';
import { Turns } from './turns.js';
import { Waiters } from './waiters.js';

export class SpaceWaits {
  readonly #sender: Sender;
  readonly #spinner: Spinner;
  readonly #waiters: Waiters = new Waiters();
  readonly #turns: Turns = new Turns();
  #ended = false;
  #reason: unknown = undefined;

  constructor(sender: Sender, spinner: Spinner) {
    this.#sender = sender;
    this.#spinner = spinner;
  }

  get count(): number {
    return this.#waiters.count;
  }

  /**
   * Makes the attempt now, after a short look, and then whenever the peer has released something;
   * in order with others that wait. `undefined` means: not yet.
   */
  async when<T>(attempt: () => T | undefined, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#waiters.count === 0) {
      const now = attempt() ?? this.#spin(attempt);
      if (now !== undefined) {
        if (this.#turns.over()) await this.#turns.next();
        return now;
      }
    }
    return this.whenReleased(attempt, signal);
  }

  /** As `when`, but whoever asks has looked already: the first attempt is made asleep. */
  whenReleased<T>(attempt: () => T | undefined, signal?: AbortSignal): Promise<T> {
    const result = this.#waiters.wait(attempt, signal);
    try {
      this.sleep();
    } catch (error) {
      // The peer's lie is told once, here: nobody awaits the other promise, which fails too.
      result.catch(() => {});
      throw error;
    }
    return result;
  }

  /** The peer rang: serves those who wait. @returns whether any was. */
  serve(): boolean {
    this.#turns.restart();
    const served = this.#waiters.serve();
    if (this.#waiters.count > 0 || this.#sender.owesReleases) this.sleep();
    else this.#sender.awake();
    return served;
  }

  /** After a forward: what comes back is passed on at once, so this side must be rung for it. */
  expectReleases(): void {
    if (!this.#sender.asleep) this.sleep();
  }

  /** Announces, looks once more, and leaves the rest to the doorbell. */
  sleep(): void {
    if (this.#ended) {
      // Whoever begins to wait only now is served or told as the others were.
      this.end(this.#reason);
      return;
    }
    this.#sender.announceSleep();
    this.#sender.collect();
    this.#waiters.serve();
    if (this.#waiters.count === 0 && !this.#sender.owesReleases) this.#sender.awake();
  }

  /** Nobody will ever release anything: those who still wait fail. */
  fail(error: unknown): void {
    this.#waiters.failAll(error);
  }

  /** The channel ended: attempts are made for the last time. */
  end(error: unknown): void {
    this.#ended = true;
    this.#reason = error;
    this.#waiters.serve();
    this.#waiters.failAll(error);
  }

  #spin<T>(attempt: () => T | undefined): T | undefined {
    const budget = this.#spinner.budget();
    if (budget === 0) return undefined;
    const deadline = nowMs() + budget / 1000;
    let result: T | undefined;
    do {
      result = attempt();
    } while (result === undefined && nowMs() < deadline);
    this.#spinner.report(result !== undefined);
    return result;
  }
}
