// How long a side looks on before it sleeps. Waking a sleeping processor costs some 35 µs, so a
// short look pays where the peer answers soon; where looks keep failing they stop, but for a try
// now and then.

const FAILURES_MAX = 8;
const RETRY_AFTER = 64;

export class Spinner {
  readonly #micros: number;
  #failures = 0;
  #skipped = 0;
  /** Spins begun, and those in which something came. */
  count = 0;
  successes = 0;

  constructor(micros: number) {
    this.#micros = micros;
  }

  /** For how many µs to look on now; 0: sleep at once. */
  budget(): number {
    if (this.#failures < FAILURES_MAX) return this.#micros;
    this.#skipped++;
    if (this.#skipped < RETRY_AFTER) return 0;
    this.#skipped = 0;
    return this.#micros;
  }

  report(succeeded: boolean): void {
    this.count++;
    if (succeeded) this.successes++;
    this.#failures = succeeded ? 0 : this.#failures + 1;
  }
}
