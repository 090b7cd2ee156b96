// What crosses the socket of a channel once the two have met: a stream of frames, each known by its
// first byte (docs/FORMAT.md says the same in prose).
import { UNIX_PATH_MAX } from '../abi/socket.js';
import { peerMisbehaved } from '../core/errors.js';

/** By which an outbox can be imported. */
export const TOKEN_BYTES = 8;
/** Tokens as keys of a map. */
export function tokenKey(token: Uint8Array): string {
  return Buffer.from(token).toString('hex');
}

export const FRAME_RING = 1;
/** "Map this region": u32 region number, token, u32 uid of its owner, u32 length, address. */
export const FRAME_IMPORT = 2;
/** "I did, or not": u32 region number, u32 status (1: mapped, 0: refused). */
export const FRAME_IMPORTED = 3;
/** "No more messages of this region": u32 region number. */
export const FRAME_DROP = 4;

/** Bytes of each frame, its type included, by type. */
export const FRAME_BYTES: readonly number[] = [0, 1, 21 + UNIX_PATH_MAX + 2 + 1, 9, 5];

export interface ImportFrame {
  readonly region: number;
  readonly token: Uint8Array;
  readonly uid: number;
  readonly address: Uint8Array;
}

export function encodeImport(frame: ImportFrame): Uint8Array {
  const bytes = new Uint8Array(FRAME_BYTES[FRAME_IMPORT] as number);
  const view = new DataView(bytes.buffer);
  bytes[0] = FRAME_IMPORT;
  view.setUint32(1, frame.region, true);
  bytes.set(frame.token, 5);
  view.setUint32(13, frame.uid, true);
  view.setUint32(17, frame.address.length, true);
  bytes.set(frame.address, 21);
  return bytes;
}

export function decodeImport(bytes: Uint8Array): ImportFrame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(17, true);
  if (length < 3 || length > UNIX_PATH_MAX + 2) throw peerMisbehaved('an import without address');
  return {
    region: view.getUint32(1, true),
    token: bytes.slice(5, 5 + TOKEN_BYTES),
    uid: view.getUint32(13, true),
    address: bytes.slice(21, 21 + length),
  };
}

export function encodeNumbers(type: number, ...numbers: number[]): Uint8Array {
  const bytes = new Uint8Array(FRAME_BYTES[type] as number);
  const view = new DataView(bytes.buffer);
  bytes[0] = type;
  numbers.forEach((value, i) => {
    view.setUint32(1 + i * 4, value, true);
  });
  return bytes;
}
