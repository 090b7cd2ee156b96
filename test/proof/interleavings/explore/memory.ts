// Shared memories of a scenario: plain ArrayBuffers that all parties see. Kept for the next schedule,
// for which what was written becomes zeros again.
import { type OutboxLayout, RING_OFFSET } from '../../../../src/memory/outbox-layout.js';
import type { Word } from './races.js';

const MEMORY = Symbol('memory');

/** Names of an outbox's words, by their offsets. */
const OUTBOX_WORDS: Readonly<Record<number, string>> = {
  128: 'tail',
  256: 'head',
  384: 'releaseTail',
  512: 'asleepForRecords',
  640: 'asleepForSpace',
  768: 'state',
};

export class Memory {
  readonly id: number;
  readonly name: string;
  readonly buffer: ArrayBuffer;
  readonly nameOf: (offset: number) => string;
  /** Parties that have replaced it by zeros of their own, as bits. */
  closedBy = 0;
  /** What the watch for races knows of each word. */
  readonly watched: (Word | undefined)[] = [];
  /** Where it was written, for the next schedule. */
  readonly #written: number[] = [];
  readonly #words: Int32Array;

  constructor(id: number, name: string, sizeBytes: number, nameOf: (offset: number) => string) {
    this.id = id;
    this.name = name;
    this.buffer = new ArrayBuffer((sizeBytes + 7) & ~7);
    this.nameOf = nameOf;
    this.#words = new Int32Array(this.buffer);
    Object.defineProperty(this.buffer, MEMORY, { value: this });
  }

  noteWritten(from: number, to: number): void {
    this.#written.push(from, to);
  }

  reset(): void {
    const written = this.#written;
    for (let i = 0; i < written.length; i += 2) {
      this.#words.fill(0, (written[i] as number) >> 2, ((written[i + 1] as number) + 3) >> 2);
    }
    written.length = 0;
    this.closedBy = 0;
  }
}

/** The memory that a view lies in; `undefined`: it is private. */
export function memoryOf(view: ArrayBufferView): Memory | undefined {
  return (view.buffer as { [MEMORY]?: Memory })[MEMORY];
}

/** Names for words of an outbox. @param layout - where what lies behind its ring. */
export function outboxWord(offset: number, layout?: OutboxLayout): string {
  const known = OUTBOX_WORDS[offset];
  if (known !== undefined) return known;
  if (offset < RING_OFFSET) return `+${offset}`;
  if (layout === undefined || offset < layout.releaseOffset) return `ring+${offset - RING_OFFSET}`;
  if (offset < layout.arenaOffset) return `releases+${offset - layout.releaseOffset}`;
  return `arena+${offset - layout.arenaOffset}`;
}
