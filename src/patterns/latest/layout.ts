// Byte layout of a table of latest values: written by its one writer, mapped read-only by its readers.
// Both compile these same numbers, so changing any of them must change LAYOUT_VERSION and
// docs/FORMAT.md.
//
//     0        128       256         512
//     | config | changes | directory | versions, one u32 a slot | buffers, four a slot …
//
// `changes` counts all versions together; `directory` counts keys that came or went, and the word
// behind it says how many slots were ever used. A slot's version says which of its buffers is the
// newest: ring/latest.ts.
//
//     buffer:  | u32 length | u32 generation | u32 key length | key, up to 116 bytes | value … |
//
// The length is 0xffffffff while the key has no value. The generation belongs to the slot's key: it
// is counted up when the slot gets another one, and 0 in a slot that never had any.
import { peerMisbehaved } from '../../core/errors.js';
import { roundUp } from '../../core/u32.js';
import { LATEST_BUFFERS, type LatestWords } from '../../ring/latest.js';

/** 'UKLV' as a little-endian u32. */
export const TABLE_MAGIC = 0x564c4b55;
export const LAYOUT_VERSION = 1;
export const CHANGES_OFFSET = 128;
export const DIRECTORY_OFFSET = 256;
export const VERSIONS_OFFSET = 512;
/** The same as indices of words. */
export const tableWords: LatestWords = {
  changes: CHANGES_OFFSET / 4,
  directory: DIRECTORY_OFFSET / 4,
  versions: VERSIONS_OFFSET / 4,
};
/** In a buffer. */
export const GENERATION_OFFSET = 4;
export const KEY_LENGTH_OFFSET = 8;
export const KEY_OFFSET = 12;
export const VALUE_OFFSET = 128;
export const KEY_BYTES_MAX: number = VALUE_OFFSET - KEY_OFFSET;
/** In place of a length: no value. */
export const ABSENT = 0xffffffff;

export const KEYS_MAX = 65536;
export const VALUE_BYTES_MAX: number = 2 ** 24;
const LINE_BYTES = 64;

/** Where everything lies, from the two sizes that the writer chose. */
export interface TableLayout {
  readonly slotCount: number;
  readonly valueBytesMax: number;
  readonly bufferBytes: number;
  readonly buffersOffset: number;
  readonly totalBytes: number;
}

/** The layout of a table. */
export function tableLayout(slotCount: number, valueBytesMax: number): TableLayout {
  const bufferBytes = roundUp(VALUE_OFFSET + valueBytesMax, LINE_BYTES);
  const buffersOffset = roundUp(VERSIONS_OFFSET + 4 * slotCount, LINE_BYTES);
  const totalBytes = buffersOffset + slotCount * LATEST_BUFFERS * bufferBytes;
  return { slotCount, valueBytesMax, bufferBytes, buffersOffset, totalBytes };
}

/** Where a buffer of a slot starts. */
export function bufferOffset(layout: TableLayout, slot: number, buffer: number): number {
  return layout.buffersOffset + (slot * LATEST_BUFFERS + buffer) * layout.bufferBytes;
}

/** Writes what is written once, before the table is shared. */
export function writeTableConfig(words: Int32Array, layout: TableLayout): void {
  const { slotCount, valueBytesMax, bufferBytes, buffersOffset } = layout;
  words.set([TABLE_MAGIC, LAYOUT_VERSION, slotCount, valueBytesMax, bufferBytes, buffersOffset]);
}

/** Reads what the writer says of its table, once, and checks it. */
export function readTableConfig(words: Int32Array, lengthBytes: number): TableLayout {
  const word = (index: number): number => (words[index] as number) >>> 0;
  if (lengthBytes < VERSIONS_OFFSET || word(0) !== TABLE_MAGIC) {
    throw peerMisbehaved('what it shares is no table of values');
  }
  if (word(1) !== LAYOUT_VERSION) {
    throw peerMisbehaved(`its table of values has the layout version ${word(1)}`);
  }
  const layout = tableLayout(word(2), word(3));
  const told = word(4) === layout.bufferBytes && word(5) === layout.buffersOffset;
  if (!told || layout.totalBytes > lengthBytes) {
    throw peerMisbehaved(`its table of ${layout.slotCount} values does not fit where it says`);
  }
  return layout;
}
