// What stands in a message in place of a part that went through shared memory.
//
//     0            16     20     24            28            32
//     | key, 16 B  | kind | part | lengthBytes | sharedBytes | the rest …
//                    u32, little-endian
//
// The parent makes the key by chance, so that no bytes of the program's are taken for a marker.
// `sharedBytes` went through shared memory; what it had no room for follows in the marker itself.
import { peerMisbehaved } from '../../core/errors.js';

export const KEY_BYTES = 16;
const KIND_OFFSET: number = KEY_BYTES;
const PART_OFFSET = 20;
const LENGTH_OFFSET = 24;
const SHARED_OFFSET = 28;
const REST_OFFSET = 32;

/** In place of a kind of view: the message as a whole, serialised. */
export const KIND_MESSAGE = 255;
type ViewClass = new (buffer: ArrayBuffer, byteOffset: number, length: number) => ArrayBufferView;

/** The kinds of view, in the order of their numbers; 0 is Buffer. */
const KINDS: readonly { readonly name: string; readonly view: ViewClass; readonly unit: number }[] =
  [
    Uint8Array,
    Int8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
  ]
    .map((view) => ({ name: view.name, view: view as ViewClass, unit: view.BYTES_PER_ELEMENT }))
    .concat({ name: 'DataView', view: DataView, unit: 1 });

/** What a marker says. */
export interface Marker {
  readonly kind: number;
  readonly part: number;
  readonly lengthBytes: number;
  readonly sharedBytes: number;
  /** The part's last bytes, behind the shared ones. */
  readonly rest: Uint8Array;
}

/** The number of a view's kind, as Node's serializer tells them apart; `undefined`: not known. */
export function kindOf(view: ArrayBufferView): number | undefined {
  if (view.constructor === Buffer) return 0;
  const name = Object.prototype.toString.call(view).slice(8, -1);
  const index = KINDS.findIndex((kind) => kind.name === name);
  return index < 0 ? undefined : index + 1;
}

/** A view of `kind` over the whole of `bytes`, which has its ArrayBuffer to itself. */
export function viewOf(kind: number, bytes: Uint8Array): ArrayBufferView {
  const buffer = bytes.buffer as ArrayBuffer;
  if (kind === 0) return Buffer.from(buffer, bytes.byteOffset, bytes.length);
  const { view: View, unit } = KINDS[kind - 1] ?? { view: undefined, unit: 1 };
  if (View === undefined || bytes.length % unit !== 0) {
    throw peerMisbehaved(`a part of ${bytes.length} bytes and of kind ${kind}`);
  }
  return new View(buffer, bytes.byteOffset, bytes.length / unit);
}

export function encodeMarker(key: Uint8Array, marker: Marker): Uint8Array {
  const bytes = new Uint8Array(REST_OFFSET + marker.rest.length);
  const words = new DataView(bytes.buffer);
  bytes.set(key);
  words.setUint32(KIND_OFFSET, marker.kind, true);
  words.setUint32(PART_OFFSET, marker.part, true);
  words.setUint32(LENGTH_OFFSET, marker.lengthBytes, true);
  words.setUint32(SHARED_OFFSET, marker.sharedBytes, true);
  bytes.set(marker.rest, REST_OFFSET);
  return bytes;
}

/** Whether these bytes are a marker with this key. */
export function isMarker(value: unknown, key: Uint8Array): value is Uint8Array {
  if (!(value instanceof Uint8Array) || value.length < KEY_BYTES) return false;
  for (let i = 0; i < KEY_BYTES; i++) if (value[i] !== key[i]) return false;
  return true;
}

/** @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`. */
export function decodeMarker(bytes: Uint8Array): Marker {
  const rest = bytes.subarray(REST_OFFSET);
  if (bytes.length < REST_OFFSET) throw peerMisbehaved(`a marker of ${bytes.length} bytes`);
  const words = new DataView(bytes.buffer, bytes.byteOffset);
  const lengthBytes = words.getUint32(LENGTH_OFFSET, true);
  const sharedBytes = words.getUint32(SHARED_OFFSET, true);
  if (sharedBytes + rest.length !== lengthBytes) {
    throw peerMisbehaved(`a marker for ${lengthBytes} bytes, of which ${sharedBytes} are shared`);
  }
  const kind = words.getUint32(KIND_OFFSET, true);
  return { kind, part: words.getUint32(PART_OFFSET, true), lengthBytes, sharedBytes, rest };
}
