// When the messages of a program are searched for large parts. To search each would make small ones
// a tenth slower: they are searched once one looked large, and as long as large ones come.

/** So many in a row without a large part: they are not searched any more. */
const PATIENCE_COUNT = 64;
/** Where nothing looks large, one of so many is searched all the same. */
const SAMPLE_COUNT = 16;

export class Vigilance {
  readonly #slowMs: number;
  #left = 0;
  #sent = 0;

  /** @param slowMs - what takes Node longer to send may be large. */
  constructor(slowMs: number) {
    this.#slowMs = slowMs;
  }

  /** Whether to search the next message. */
  get awake(): boolean {
    return this.#left > 0;
  }

  /** A message was searched. */
  searched(large: boolean): void {
    this.#left = large ? PATIENCE_COUNT : Math.max(0, this.#left - 1);
  }

  /** A message was sent without a search. @returns whether to search it now, for the sake of the next. */
  suspects(tookMs: number): boolean {
    this.#sent++;
    return tookMs > this.#slowMs || this.#sent % SAMPLE_COUNT === 0;
  }
}
