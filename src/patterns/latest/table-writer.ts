// The writer's side of a table: which slot holds which key, and how a value gets into it. Whatever is
// relied on is private; the table is only written.
import { invalidArgument, UkshmError } from '../../core/errors.js';
import { LATEST_BUFFERS, LatestWriter } from '../../ring/latest.js';
import {
  ABSENT,
  bufferOffset,
  GENERATION_OFFSET,
  KEY_BYTES_MAX,
  KEY_LENGTH_OFFSET,
  KEY_OFFSET,
  type TableLayout,
  tableWords,
  VALUE_OFFSET,
  writeTableConfig,
} from './layout.js';

export class TableWriter {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #layout: TableLayout;
  readonly #latest: LatestWriter;
  readonly #slots: Map<string, number> = new Map();
  readonly #keys: Uint8Array[] = [];
  /** Slots whose key was deleted. */
  readonly #free: number[] = [];
  readonly #generations: Uint32Array;
  /** Of the key that was last written into each buffer. */
  readonly #written: Uint32Array;

  /** @param bytes - the table's memory, writable: zeros, and starting at a multiple of 8. */
  constructor(bytes: Uint8Array, layout: TableLayout) {
    this.#bytes = bytes;
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    this.#layout = layout;
    this.#latest = new LatestWriter(this.#words, tableWords, layout.slotCount);
    this.#generations = new Uint32Array(layout.slotCount);
    this.#written = new Uint32Array(layout.slotCount * LATEST_BUFFERS);
    writeTableConfig(this.#words, layout);
  }

  get keys(): IterableIterator<string> {
    return this.#slots.keys();
  }

  get size(): number {
    return this.#slots.size;
  }

  has(key: string): boolean {
    return this.#slots.has(key);
  }

  /** @throws UkshmError `ERR_UKSHM_LIMIT`, `ERR_UKSHM_INVALID_ARGUMENT`. */
  set(key: string, value: Uint8Array): void {
    const slot = this.#slots.get(key);
    if (slot !== undefined) {
      this.#write(slot, value);
      return;
    }
    const fresh = this.#assign(key);
    this.#write(fresh, value, this.#keys.length);
  }

  /** @returns whether the key had a value. */
  delete(key: string): boolean {
    const slot = this.#slots.get(key);
    if (slot === undefined) return false;
    this.#slots.delete(key);
    this.#free.push(slot);
    this.#write(slot, undefined);
    return true;
  }

  #write(slot: number, value: Uint8Array | undefined, slotsUsed: number = 0): void {
    const buffer = this.#latest.prepare(slot);
    const at = bufferOffset(this.#layout, slot, buffer);
    const index = at >> 2;
    const generation = this.#generations[slot] as number;
    const place = slot * LATEST_BUFFERS + buffer;
    if (this.#written[place] !== generation) {
      const key = this.#keys[slot] as Uint8Array;
      this.#written[place] = generation;
      this.#words[index + (GENERATION_OFFSET >> 2)] = generation;
      this.#words[index + (KEY_LENGTH_OFFSET >> 2)] = key.length;
      this.#bytes.set(key, at + KEY_OFFSET);
    }
    this.#words[index] = value === undefined ? ABSENT : value.length;
    if (value !== undefined) this.#bytes.set(value, at + VALUE_OFFSET);
    this.#latest.commit(slot, slotsUsed);
  }

  /** A slot for a new key. */
  #assign(key: string): number {
    const bytes = Buffer.from(key);
    const whole = typeof key === 'string' && bytes.toString() === key;
    if (!whole || bytes.length === 0 || bytes.length > KEY_BYTES_MAX) {
      throw invalidArgument('key', key, `1 to ${KEY_BYTES_MAX} bytes of text`);
    }
    const slot = this.#free.pop() ?? this.#keys.length;
    if (slot === this.#layout.slotCount) {
      throw new UkshmError(
        'ERR_UKSHM_LIMIT',
        `all ${slot} keys are in use: delete some, or ask for more in openValues(name, { maxKeys })`,
      );
    }
    this.#keys[slot] = bytes;
    this.#slots.set(key, slot);
    // 0 is the generation of a slot without a key.
    this.#generations[slot] = ((this.#generations[slot] as number) + 1) >>> 0 || 1;
    return slot;
  }
}
