// A bounded share of each turn of the event loop: promises that are ready at once would otherwise
// keep everything else from running.
import { nextTurn, nowMs } from '../sys/clock.js';

/** How long reads or sends may go on in a row before other work gets its turn. */
const TURN_MS = 2;
const STEPS_PER_CLOCK = 32;

export class Turns {
  #steps = 0;
  #startMs = 0;
  #over = false;

  /** Whether the share of this turn is used up, and stays so until the next. Counts a step. */
  over(): boolean {
    this.#steps++;
    if (this.#steps % STEPS_PER_CLOCK !== 0) return this.#over;
    const now = nowMs();
    if (this.#startMs === 0) this.#startMs = now;
    this.#over = now - this.#startMs > TURN_MS;
    return this.#over;
  }

  /** Resolves in the next turn. */
  next(): Promise<void> {
    this.restart();
    return new Promise((resolve) => nextTurn(resolve));
  }

  /** A turn of the event loop has begun. */
  restart(): void {
    this.#startMs = 0;
    this.#over = false;
  }
}
