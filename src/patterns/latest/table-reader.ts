// A reader's side of a table: finds keys, copies values out. Nothing in the table is believed:
// lengths are read once and checked, and keys are decoded from copies.
import { peerMisbehaved } from '../../core/errors.js';
import { copyLongs, LongView } from '../../memory/long-view.js';
import { LATEST_BUFFERS, LatestReader } from '../../ring/latest.js';
import {
  ABSENT,
  bufferOffset,
  GENERATION_OFFSET,
  KEY_BYTES_MAX,
  KEY_LENGTH_OFFSET,
  KEY_OFFSET,
  readTableConfig,
  type TableLayout,
  tableWords,
  VALUE_OFFSET,
} from './layout.js';

/** Values up to this are copied by 64-bit words. */
const LONG_COPY_BYTES_MAX = 256;
/** Reads in a row that the writer may spoil: an honest one would have to set for minutes. */
const TRIES_MAX = 1_000_000;

/** What became of a key. */
export interface Change {
  readonly key: string;
  /** Its newest value, a private copy; `undefined` where it was deleted. */
  readonly value: Uint8Array | undefined;
  /** Another one with each value; `undefined` where it was deleted. */
  readonly version: number | undefined;
}

export class TableReader {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #longs: BigInt64Array;
  readonly #target: LongView = new LongView();
  readonly #layout: TableLayout;
  readonly #latest: LatestReader;
  /** By slot: its key, and that key's generation. */
  readonly #keys: (string | undefined)[] = [];
  readonly #generations: Uint32Array;
  readonly #slots: Map<string, number> = new Map();
  /** By slot: the version at which its key was looked at last. */
  readonly #learned: Int32Array;
  /** By slot: the version that was last reported. */
  readonly #reported: Int32Array;
  readonly #gone: Set<string> = new Set();
  #directorySeen = 0;
  #changesSeen = 0;
  /** Of the last read. */
  #version = 0;

  private constructor(bytes: Uint8Array, words: Int32Array, layout: TableLayout) {
    this.#bytes = bytes;
    this.#words = words;
    this.#longs = new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.length >> 3);
    this.#layout = layout;
    this.#latest = new LatestReader(this.#words, tableWords);
    this.#generations = new Uint32Array(this.#layout.slotCount);
    this.#learned = new Int32Array(this.#layout.slotCount);
    this.#reported = new Int32Array(this.#layout.slotCount);
  }

  /**
   * @param bytes - the table in place, read-only, starting at a multiple of 8.
   * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`.
   */
  static over(bytes: Uint8Array): TableReader {
    if ((bytes.byteOffset & 7) !== 0) throw peerMisbehaved('its table of values is not aligned');
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    const reader = new TableReader(bytes, words, readTableConfig(words, bytes.length));
    reader.#start();
    return reader;
  }

  /** What there is now is no change. */
  #start(): void {
    this.#changesSeen = this.#latest.changes();
    this.#scan();
    this.#gone.clear();
    for (let slot = 0; slot < this.#reported.length; slot++) {
      this.#reported[slot] = this.#latest.glance(slot);
    }
  }

  /** The newest value of a key, a private copy. */
  get(key: string): Uint8Array | undefined {
    for (let i = 0; i < TRIES_MAX; i++) {
      const slot = this.#slotOf(key);
      if (slot < 0) return undefined;
      const at = this.#begin(slot);
      const lengthBytes = this.#lengthAt(at);
      const known = this.#isKnown(slot, at);
      const there = known && lengthBytes >= 0;
      // `slice` copies.
      const value = there
        ? this.#bytes.slice(at + VALUE_OFFSET, at + VALUE_OFFSET + lengthBytes)
        : undefined;
      if (!this.#latest.intact(slot, this.#version)) continue;
      if (there || !this.#isElsewhere(key, slot, known)) return value;
    }
    throw restless(key);
  }

  /**
   * Copies the newest value of a key to the start of `target`.
   * @returns its length, or -1: it has none.
   * @throws RangeError when `target` is shorter.
   */
  getInto(key: string, target: Uint8Array): number {
    for (let i = 0; i < TRIES_MAX; i++) {
      const slot = this.#slotOf(key);
      if (slot < 0) return -1;
      const at = this.#begin(slot);
      const lengthBytes = this.#lengthAt(at);
      const known = this.#isKnown(slot, at);
      const there = known && lengthBytes >= 0;
      const fits = lengthBytes <= target.length;
      if (there && fits) this.#copy(at + VALUE_OFFSET, lengthBytes, target);
      if (!this.#latest.intact(slot, this.#version)) continue;
      if (there && fits) return lengthBytes;
      if (there) throw new RangeError(`a value of ${lengthBytes} bytes: the target is too short`);
      if (!this.#isElsewhere(key, slot, known)) return -1;
    }
    throw restless(key);
  }

  /** Counts the values that the key's slot ever had; `undefined` if it has none. */
  version(key: string): number | undefined {
    for (let i = 0; i < TRIES_MAX; i++) {
      const slot = this.#slotOf(key);
      if (slot < 0) return undefined;
      const at = this.#begin(slot);
      const known = this.#isKnown(slot, at);
      const there = known && this.#lengthAt(at) >= 0;
      const version = this.#version;
      if (!this.#latest.intact(slot, version)) continue;
      if (there) return version >>> 0;
      if (!this.#isElsewhere(key, slot, known)) return undefined;
    }
    throw restless(key);
  }

  /** The keys that have a value now. */
  keys(): string[] {
    this.#scan();
    return [...this.#slots.keys()].filter((key) => this.version(key) !== undefined);
  }

  /** Whether anything was set or deleted since `takeChanges`. */
  hasChanges(): boolean {
    return this.#gone.size > 0 || this.#latest.changes() !== this.#changesSeen;
  }

  /** What was set or deleted since the last time, each key once, with its newest value. */
  takeChanges(): Change[] {
    if (!this.hasChanges()) return [];
    this.#changesSeen = this.#latest.changes();
    this.#scan();
    const changes: Change[] = [];
    for (const key of this.#gone) {
      if (!this.#slots.has(key)) changes.push({ key, value: undefined, version: undefined });
    }
    this.#gone.clear();
    const used = this.#keys.length;
    for (let slot = 0; slot < used; slot++) {
      if (this.#latest.glance(slot) === this.#reported[slot]) continue;
      const key = this.#keys[slot];
      if (key === undefined) continue;
      const value = this.get(key);
      // It has moved meanwhile: its new place tells of it, or the list of those that are gone.
      if (this.#slots.get(key) !== slot) continue;
      this.#reported[slot] = this.#version;
      const version = value === undefined ? undefined : this.#version >>> 0;
      changes.push({ key, value, version });
      // Told once: when the slot gets another key, that is no news of this one.
      if (value !== undefined) continue;
      this.#leave(slot);
      this.#learned[slot] = this.#version;
    }
    return changes;
  }

  /** Small values by 64-bit words, where the same target comes again. */
  #copy(from: number, lengthBytes: number, target: Uint8Array): void {
    const longs = this.#target.of(target);
    const count = lengthBytes >> 3;
    if (lengthBytes > LONG_COPY_BYTES_MAX || count > longs.length) {
      target.set(this.#bytes.subarray(from, from + lengthBytes));
      return;
    }
    copyLongs(this.#longs, from >> 3, longs, 0, count);
    for (let i = count << 3; i < lengthBytes; i++) target[i] = this.#bytes[from + i] as number;
  }

  /** Where the buffer starts that is the slot's newest. */
  #begin(slot: number): number {
    this.#version = this.#latest.begin(slot);
    return this.#bufferOf(slot, this.#version);
  }

  #bufferOf(slot: number, version: number): number {
    return bufferOffset(this.#layout, slot, version & (LATEST_BUFFERS - 1));
  }

  /** The length of the value there; -1: none. */
  #lengthAt(at: number): number {
    const lengthBytes = (this.#words[at >> 2] as number) >>> 0;
    if (lengthBytes === ABSENT) return -1;
    if (lengthBytes <= this.#layout.valueBytesMax) return lengthBytes;
    throw peerMisbehaved(`a value of ${lengthBytes} bytes in its table of values`);
  }

  #generationAt(at: number): number {
    return (this.#words[(at + GENERATION_OFFSET) >> 2] as number) >>> 0;
  }

  /** Whether the slot holds the key that it is known for. */
  #isKnown(slot: number, at: number): boolean {
    return this.#generationAt(at) === this.#generations[slot];
  }

  /** The slot of a key, or -1. */
  #slotOf(key: string): number {
    const slot = this.#slots.get(key);
    if (slot !== undefined) return slot;
    return this.#scan() ? (this.#slots.get(key) ?? -1) : -1;
  }

  /**
   * The slot has another key by now, or (`known`) no value of this one.
   * @returns whether the key may be found elsewhere.
   */
  #isElsewhere(key: string, slot: number, known: boolean): boolean {
    if (!known) this.#forget(slot);
    if (!this.#scan()) return false;
    const now = this.#slots.get(key);
    return now !== undefined && (now !== slot || !known);
  }

  #forget(slot: number): void {
    const key = this.#leave(slot);
    if (key !== undefined) this.#gone.add(key);
  }

  /** @returns the key that was known in the slot. */
  #leave(slot: number): string | undefined {
    const key = this.#keys[slot];
    this.#generations[slot] = 0;
    this.#keys[slot] = undefined;
    if (key === undefined || this.#slots.get(key) !== slot) return undefined;
    this.#slots.delete(key);
    return key;
  }

  /** Learns keys that came since the last time. @returns whether any did. */
  #scan(): boolean {
    const directory = this.#latest.directory();
    if (directory === this.#directorySeen) return false;
    this.#directorySeen = directory;
    const used = this.#latest.slotsUsed();
    if (used > this.#layout.slotCount) throw peerMisbehaved(`${used} slots in its table of values`);
    for (let slot = 0; slot < used; slot++) {
      if (this.#latest.glance(slot) !== this.#learned[slot]) this.#learn(slot);
    }
    return true;
  }

  #learn(slot: number): void {
    for (let i = 0; i < TRIES_MAX; i++) {
      const version = this.#latest.begin(slot);
      const at = this.#bufferOf(slot, version);
      const generation = this.#generationAt(at);
      const fresh = generation !== this.#generations[slot];
      const key = fresh ? this.#keyAt(at) : undefined;
      const there = this.#lengthAt(at) >= 0;
      if (!this.#latest.intact(slot, version)) continue;
      this.#learned[slot] = version;
      if (key === undefined) return;
      this.#forget(slot);
      if (there) {
        this.#generations[slot] = generation;
        this.#keys[slot] = key;
        this.#slots.set(key, slot);
      } else {
        // Deleted since: the key may have another slot by now, which must not be forgotten for this.
        this.#gone.add(key);
      }
      return;
    }
    throw restless(`slot ${slot}`);
  }

  #keyAt(at: number): string {
    const lengthBytes = (this.#words[(at + KEY_LENGTH_OFFSET) >> 2] as number) >>> 0;
    if (lengthBytes > KEY_BYTES_MAX) {
      throw peerMisbehaved(`a key of ${lengthBytes} bytes in its table of values`);
    }
    const copy = this.#bytes.slice(at + KEY_OFFSET, at + KEY_OFFSET + lengthBytes);
    return Buffer.from(copy.buffer).toString();
  }
}

function restless(what: string): Error {
  return peerMisbehaved(`its value of ${what} changes whenever it is read`);
}
