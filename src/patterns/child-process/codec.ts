// Mode 'advanced': a message with large parts as Node's IPC would serialise it, with markers in place
// of these. What is not described here is v8's own: references, cycles, getters, errors.
//
//     u32 count of large ArrayBuffers, and for each: u32 part, u32 length (v8's varints)
//     v8's header and value; a view, or another object that v8 does not know, stands as
//         0, a view as v8.DefaultSerializer writes it (maybe a marker)
//         1, its enumerable properties
import v8 from 'node:v8';
import { peerMisbehaved } from '../../core/errors.js';
import { decodeMarker, encodeMarker, isMarker, KIND_MESSAGE, kindOf, viewOf } from './marker.js';
import type { PartReceiver } from './part-receiver.js';
import type { PartSender } from './part-sender.js';
import { largeBuffersIn, PART_BYTES_MIN } from './search.js';

const TAG_VIEW = 0;
const TAG_OTHER = 1;
const NOTHING: Uint8Array = new Uint8Array(0);

/** What v8's documentation says of the two classes, and its types do not. */
interface Writing extends v8.Serializer {
  _writeHostObject(value: object): void;
}
interface Reading extends v8.Deserializer {
  _readHostObject(): object;
}
const Serializer = v8.DefaultSerializer as unknown as new () => Writing;
const Deserializer = v8.DefaultDeserializer as unknown as new (bytes: Uint8Array) => Reading;

class Writer extends Serializer {
  readonly #sender: PartSender;

  constructor(sender: PartSender) {
    super();
    this.#sender = sender;
  }

  /** Large ArrayBuffers, which v8 would write without asking. */
  writeBuffers(buffers: readonly ArrayBuffer[]): void {
    const sent: { readonly part: number; readonly lengthBytes: number }[] = [];
    for (const buffer of buffers) {
      if (!this.#sender.putWhole(new Uint8Array(buffer))) continue;
      this.transferArrayBuffer(sent.length, buffer);
      sent.push({ part: this.#sender.part, lengthBytes: buffer.byteLength });
    }
    this.writeUint32(sent.length);
    for (const { part, lengthBytes } of sent) {
      this.writeUint32(part);
      this.writeUint32(lengthBytes);
    }
  }

  /** Called by v8 for each view, and for each object that is not JavaScript's own. */
  override _writeHostObject(value: object): void {
    if (!ArrayBuffer.isView(value)) {
      this.writeUint32(TAG_OTHER);
      this.writeValue({ ...value });
      return;
    }
    this.writeUint32(TAG_VIEW);
    super._writeHostObject(this.#replace(value) ?? value);
  }

  #replace(view: ArrayBufferView): Uint8Array | undefined {
    const kind = view.byteLength < PART_BYTES_MIN ? undefined : kindOf(view);
    if (kind === undefined) return undefined;
    return replace(this.#sender, bytesOf(view), kind);
  }
}

class Reader extends Deserializer {
  readonly #receiver: PartReceiver;

  constructor(bytes: Uint8Array, receiver: PartReceiver) {
    super(bytes);
    this.#receiver = receiver;
  }

  readBuffers(): void {
    const count = this.readUint32();
    for (let number = 0; number < count; number++) {
      const part = this.readUint32();
      const lengthBytes = this.readUint32();
      const bytes = this.#receiver.take({
        part,
        lengthBytes,
        sharedBytes: lengthBytes,
        rest: NOTHING,
      });
      this.transferArrayBuffer(number, bytes.buffer as ArrayBuffer);
    }
  }

  /** Called by v8. */
  override _readHostObject(): object {
    if (this.readUint32() === TAG_OTHER) return this.readValue() as object;
    const view = super._readHostObject();
    if (!isMarker(view, this.#receiver.key)) return view;
    const marker = decodeMarker(view);
    return viewOf(marker.kind, this.#receiver.take(marker));
  }
}

/**
 * Serialises a message, and sends its large parts.
 * @returns what is to be sent in its place.
 * @throws what v8 throws of it; its parts are then dropped.
 */
export function encodeMessage(message: object, sender: PartSender): Uint8Array {
  const before = sender.part;
  try {
    const writer = new Writer(sender);
    writer.writeBuffers(largeBuffersIn(message));
    writer.writeHeader();
    writer.writeValue(message);
    const bytes = writer.releaseBuffer();
    const large = bytes.length >= PART_BYTES_MIN && !sender.stalled;
    const marker = large ? replace(sender, bytes, KIND_MESSAGE) : undefined;
    return marker ?? encodeMarker(sender.key, whole(bytes));
  } catch (error) {
    sender.dropBehind(before);
    throw error;
  }
}

/**
 * The message in place of which `marker` came.
 * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_NO_MEMORY`.
 */
export function decodeMessage(marker: Uint8Array, receiver: PartReceiver): unknown {
  const { kind, ...rest } = decodeMarker(marker);
  if (kind !== KIND_MESSAGE) throw peerMisbehaved(`a part of kind ${kind} as a message`);
  const reader = new Reader(rest.sharedBytes > 0 ? receiver.take(rest) : rest.rest, receiver);
  reader.readBuffers();
  reader.readHeader();
  return reader.readValue();
}

function replace(sender: PartSender, bytes: Uint8Array, kind: number): Uint8Array | undefined {
  const sharedBytes = sender.put(bytes);
  if (sharedBytes === 0) return undefined;
  const { key, part } = sender;
  const rest = bytes.subarray(sharedBytes);
  return encodeMarker(key, { kind, part, lengthBytes: bytes.length, sharedBytes, rest });
}

function whole(bytes: Uint8Array): Parameters<typeof encodeMarker>[1] {
  return { kind: KIND_MESSAGE, part: 0, lengthBytes: bytes.length, sharedBytes: 0, rest: bytes };
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
