// Vector clocks: whether two accesses of different parties, of which one writes and one is plain, are
// ordered by what the program does to order them. An atomic store hands the writer's clock to whoever
// loads it; a message through a socket does, too. Whole words are compared.
import type { Memory } from './memory.js';

type Clock = Int32Array;

/** What is known of one word. Kept with its memory from run to run, and begun anew in each. */
export class Word {
  /** The run that it was last used in. */
  run = -1;
  /** Party and time of the last plain write, and of plain reads since. */
  writer = -1;
  writtenAt = 0;
  readers: Clock | undefined = undefined;
  /** The same of atomic ones. */
  storer = -1;
  storedAt = 0;
  loads: Clock | undefined = undefined;
  /** What whoever loads it learns. */
  handed: Clock | undefined = undefined;
}

let runs = 0;

export class Races {
  readonly #count: number;
  readonly #clocks: Clock[];
  readonly #run: number;
  readonly #inboxes: Clock[];

  constructor(partyCount: number) {
    this.#count = partyCount;
    this.#run = runs++;
    this.#clocks = Array.from({ length: partyCount }, () => new Int32Array(partyCount));
    this.#inboxes = Array.from({ length: partyCount }, () => new Int32Array(partyCount));
    for (let i = 0; i < partyCount; i++) (this.#clocks[i] as Clock)[i] = 1;
  }

  /** @returns the party whose access this one is not ordered with; -1: none. */
  access(
    party: number,
    memory: Memory,
    from: number,
    to: number,
    writes: boolean,
    atomic: boolean,
  ): number {
    const clock = this.#clocks[party] as Clock;
    for (let at = from >> 2; at << 2 < to; at++) {
      let word = memory.watched[at];
      if (word === undefined || word.run !== this.#run) {
        word = new Word();
        word.run = this.#run;
        memory.watched[at] = word;
      }
      const other = this.#unordered(word, clock, party, writes, atomic);
      if (other >= 0) return other;
      this.#note(word, clock, party, writes, atomic);
    }
    return -1;
  }

  /** A message, or a hang-up, for a party. */
  sent(from: number, to: number): void {
    join(this.#inboxes[to] as Clock, this.#clocks[from] as Clock);
    this.#tick(from);
  }

  received(party: number): void {
    join(this.#clocks[party] as Clock, this.#inboxes[party] as Clock);
  }

  #unordered(word: Word, clock: Clock, party: number, writes: boolean, atomic: boolean): number {
    const { writer, storer, readers, loads } = word;
    if (writer >= 0 && writer !== party && (clock[writer] as number) < word.writtenAt)
      return writer;
    if (!atomic && storer >= 0 && storer !== party && (clock[storer] as number) < word.storedAt) {
      return storer;
    }
    if (!writes) return -1;
    for (let i = 0; i < this.#count; i++) {
      if (i === party) continue;
      if (readers !== undefined && (clock[i] as number) < (readers[i] as number)) return i;
      if (!atomic && loads !== undefined && (clock[i] as number) < (loads[i] as number)) return i;
    }
    return -1;
  }

  #note(word: Word, clock: Clock, party: number, writes: boolean, atomic: boolean): void {
    const now = clock[party] as number;
    if (atomic && writes) {
      word.storer = party;
      word.storedAt = now;
      word.handed = clock.slice();
      this.#tick(party);
    } else if (atomic) {
      word.loads ??= new Int32Array(this.#count);
      word.loads[party] = now;
      if (word.handed !== undefined) join(clock, word.handed);
    } else if (writes) {
      word.writer = party;
      word.writtenAt = now;
    } else {
      word.readers ??= new Int32Array(this.#count);
      word.readers[party] = now;
    }
  }

  #tick(party: number): void {
    const clock = this.#clocks[party] as Clock;
    clock[party] = (clock[party] as number) + 1;
  }
}

function join(into: Clock, from: Clock): void {
  for (let i = 0; i < into.length; i++) {
    if ((from[i] as number) > (into[i] as number)) into[i] = from[i] as number;
  }
}
