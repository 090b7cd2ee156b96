// The packets between a claimer and the thread that answers (native/offers-answer.c draws them).
// Byte order is the machine's: both sides run on it.
import { lettersOf } from './rights.js';

export const REQUEST_BYTES = 24;
export const ANSWER_BYTES = 40;
const ENTRY_BYTES = 32;
/** The longest packet: an answer with 128 entries. */
export const PACKET_BYTES_MAX: number = ANSWER_BYTES + 128 * ENTRY_BYTES;
const MAGIC = 0x464f4b55;

export const KIND_CLAIM = 1;
export const KIND_LIST = 2;
export const KIND_LIST_ALL = 3;

export const GRANT = 1;
export const DONE = 2;
export const NOT_OFFERED = 3;
export const LENT = 4;
export const CHALLENGE = 5;
export const LISTED = 6;
export const FAILED = 7;

/** An answer, as its sender says it. */
export interface Answer {
  readonly status: number;
  readonly unitBytes: number;
  readonly unitCount: number;
  readonly grant: number;
  /** `serial`, `errno`, or a nonce of which only the bytes matter. */
  readonly detail: number;
  readonly nonce: Uint8Array;
}

/** An offer, as its source tells it. */
export interface Entry {
  readonly address: number;
  readonly sizeBytes: number;
  readonly serial: number;
  readonly pid: number;
  readonly grant: string;
  readonly drop: string;
}

/** A number below 2^53 as two halves. */
function putLong(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}

/** Beyond 2^53 it is wrong, and no check that follows takes it. */
function getLong(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
}

export function requestOf(kind: number, address: number, nonce: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(REQUEST_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, kind, true);
  putLong(view, 8, address);
  bytes.set(nonce, 16);
  return bytes;
}

/** `undefined`: no answer of ours. */
export function answerIn(bytes: Uint8Array): Answer | undefined {
  if (bytes.length < ANSWER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  return {
    status: view.getUint32(4, true),
    unitBytes: getLong(view, 16),
    unitCount: view.getUint32(24, true),
    grant: view.getUint32(28, true),
    detail: getLong(view, 32),
    nonce: bytes.slice(32, 40),
  };
}

/** The entries behind a LISTED answer; `undefined` where their number is a lie. */
export function entriesIn(bytes: Uint8Array, count: number): Entry[] | undefined {
  if (bytes.length !== ANSWER_BYTES + count * ENTRY_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entries: Entry[] = [];
  for (let at = ANSWER_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    entries.push({
      address: getLong(view, at),
      sizeBytes: getLong(view, at + 8),
      serial: getLong(view, at + 16),
      pid: view.getUint32(at + 24, true),
      grant: lettersOf(view.getUint16(at + 28, true)),
      drop: lettersOf(view.getUint16(at + 30, true)),
    });
  }
  return entries;
}
