// When the messages of a program are searched for large parts. To search each would make small ones
// a tenth slower: they are searched once one looked large, and as long as large ones come.

/** So many in a row without a large part: they are not searched any more. */
const PATIENCE_COUNT = 64;
/** Where nothing looks large, one of so many is searched all the same. */
const SAMPLE_COUNT = 16;

export class Vigilance {
  #left = 0;
  #sent = 0;
  #flowed = true;

  /** Whether to search the next message. */
  get awake(): boolean {
    return this.#left > 0;
  }

  /** A message was searched. */
  searched(large: boolean): void {
    this.#left = large ? PATIENCE_COUNT : Math.max(0, this.#left - 1);
  }

  /**
   * A message was sent without a search.
   * @param flows - what Node's `send` said: `false` where much is waiting in front of the pipe.
   * @returns whether it looks large: it may be what made the pipe full.
   */
  suspects(flows: boolean): boolean {
    const wasFilled = this.#flowed && !flows;
    this.#flowed = flows;
    return wasFilled || ++this.#sent % SAMPLE_COUNT === 0;
  }
}
