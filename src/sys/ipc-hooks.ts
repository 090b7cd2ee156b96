// Where large views can be taken out of what Node serialises for an IPC pipe, and put back.
// Loads no addon.
//
// Node looks public methods up while it works: its own subclasses of v8.DefaultSerializer and
// v8.DefaultDeserializer call writeHeader first, their super's _writeHostObject and _readHostObject
// for each view, and releaseBuffer at the end ('advanced'); JSON.stringify calls toJSON ('json').
// Here these become functions that do what they did, unless a message of ours is under way. So
// getters, toJSON, references, cycles and errors stay Node's, and a message without large views
// costs nothing. Where another Node does it otherwise, nothing is ever taken out (see `hasRead`).
import v8 from 'node:v8';

/** What may stand in for parts of the message that is being sent. */
export interface Outgoing {
  /** 'advanced': what is written in place of a view: itself, or a marker. */
  view(view: ArrayBufferView): ArrayBufferView;
  /** 'advanced': the message as serialised; a marker to be sent in its place, if any. */
  body(bytes: Uint8Array): Uint8Array | undefined;
  /** 'json': what stands for the numbers of a Buffer, if anything. */
  buffer(buffer: Uint8Array): string | undefined;
}

/** What a marker stands for; `decode` reads a serialised message as Node's IPC does. */
export type Restore = (marker: Uint8Array, decode: (bytes: Uint8Array) => object) => object;

/** A marker begins with this many bytes by which its `Restore` is found. */
export const MARKER_KEY_BYTES = 16;

/** What of v8's two classes is used here: documented, but not typed. */
interface Serializer {
  writeHeader(): void;
  writeValue(value: unknown): void;
  writeRawBytes(bytes: Uint8Array): void;
  releaseBuffer(): Buffer;
  _writeHostObject(view: ArrayBufferView): void;
}

interface Deserializer {
  readHeader(): boolean;
  readValue(): object;
  _readHostObject(): ArrayBufferView;
}

type SerializerClass = new () => Serializer;
type DeserializerClass = new (bytes: Uint8Array) => Deserializer;

/** Node writes the length of a message over its first bytes. */
const LENGTH_BYTES = 4;
const usualToJson = Buffer.prototype.toJSON;
const usualStringify = JSON.stringify;

export class IpcHooks {
  readonly #expected: Map<string, Restore> = new Map();
  #outgoing: Outgoing | undefined = undefined;
  /** What serialises it: a getter of the message may serialise something else by the way. */
  #message: Serializer | undefined = undefined;
  /** A `toJSON` or getter of the message has called `JSON.stringify`. */
  #nested = 0;
  #largestSeen = 0;
  #hasRead = false;

  /** For `ipcHooks`. */
  constructor() {
    this.#hookWriting(v8.DefaultSerializer.prototype as unknown as Serializer);
    this.#hookReading(v8.DefaultDeserializer.prototype as unknown as Deserializer);
  }

  /** Whether Node's own deserializer was seen to ask what a view stands for. */
  get hasRead(): boolean {
    return this.#hasRead;
  }

  /** From now on markers that begin with `key` become what `restore` answers. */
  expect(key: Uint8Array, restore: Restore): void {
    this.#expected.set(keyText(key), restore);
  }

  forget(key: Uint8Array): void {
    this.#expected.delete(keyText(key));
  }

  /** Bytes of the largest view that came by any pipe since the last call. */
  takeLargestSeen(): number {
    const largest = this.#largestSeen;
    this.#largestSeen = 0;
    return largest;
  }

  /** Runs `send`, in which one message is serialised in mode 'advanced'. */
  advanced<T>(outgoing: Outgoing, send: () => T): T {
    const before = this.#outgoing;
    const message = this.#message;
    this.#outgoing = outgoing;
    this.#message = undefined;
    try {
      return send();
    } finally {
      this.#outgoing = before;
      this.#message = message;
    }
  }

  /** Runs `send`, in which one message is serialised in mode 'json'. */
  json<T>(outgoing: Outgoing, send: () => T): T {
    const toJson = Buffer.prototype.toJSON;
    const { stringify } = JSON;
    // A getter of a message may send another one: then both are hooked already.
    if (toJson !== usualToJson && toJson !== this.#toJson) return send();
    const before = this.#outgoing;
    const nested = this.#nested;
    this.#outgoing = outgoing;
    this.#nested = 0;
    Buffer.prototype.toJSON = this.#toJson;
    if (stringify === usualStringify) JSON.stringify = this.#stringify;
    try {
      return send();
    } finally {
      this.#outgoing = before;
      this.#nested = nested;
      Buffer.prototype.toJSON = toJson;
      JSON.stringify = stringify;
    }
  }

  #hookWriting(prototype: Serializer): void {
    const hooks = this;
    const { writeHeader: begin, _writeHostObject: writeView, releaseBuffer: end } = prototype;
    prototype.writeHeader = function (this: Serializer): void {
      // None of the program's code runs between `send` and its message's header.
      if (hooks.#outgoing !== undefined) hooks.#message ??= this;
      begin.call(this);
    };
    prototype._writeHostObject = function (this: Serializer, view: ArrayBufferView): void {
      const outgoing = this === hooks.#message ? hooks.#outgoing : undefined;
      writeView.call(this, outgoing === undefined ? view : outgoing.view(view));
    };
    prototype.releaseBuffer = function (this: Serializer): Buffer {
      const bytes = end.call(this);
      if (this !== hooks.#message) return bytes;
      const marker = hooks.#outgoing?.body(bytes.subarray(LENGTH_BYTES));
      return marker === undefined ? bytes : end.call(serializerOf(marker, this));
    };
  }

  #hookReading(prototype: Deserializer): void {
    const hooks = this;
    const { _readHostObject: readView } = prototype;
    prototype._readHostObject = function (this: Deserializer): ArrayBufferView {
      const view = readView.call(this);
      const Class = this.constructor as DeserializerClass;
      const usual = Class === (v8.DefaultDeserializer as unknown);
      return usual ? view : (hooks.#restore(view, Class) as ArrayBufferView);
    };
  }

  #restore(view: ArrayBufferView, Class: DeserializerClass): object {
    this.#hasRead = true;
    if (view.byteLength > this.#largestSeen) this.#largestSeen = view.byteLength;
    if (this.#expected.size === 0 || view.constructor !== Uint8Array) return view;
    const restore = this.#expected.get(keyText(view as Uint8Array));
    if (restore === undefined) return view;
    return restore(view as Uint8Array, (bytes) => {
      const deserializer = new Class(bytes);
      deserializer.readHeader();
      return deserializer.readValue();
    });
  }

  /** In place of `Buffer.prototype.toJSON` while a message is serialised; `JSON.stringify` names a key. */
  readonly #toJson = toJsonHook((buffer) =>
    this.#nested > 0 ? undefined : this.#outgoing?.buffer(buffer),
  );

  /** In place of `JSON.stringify` meanwhile: what the message's own code makes of it is its own. */
  readonly #stringify = ((...args: Parameters<typeof usualStringify>): string => {
    this.#nested++;
    try {
      return usualStringify(...args);
    } finally {
      this.#nested--;
    }
  }) as typeof usualStringify;
}

/** A serializer that has written a marker, in place of one that has written a message. */
function serializerOf(marker: Uint8Array, like: Serializer): Serializer {
  const serializer = new (like.constructor as SerializerClass)();
  serializer.writeRawBytes(new Uint8Array(LENGTH_BYTES));
  serializer.writeHeader();
  serializer.writeValue(marker);
  return serializer;
}

function toJsonHook(replace: (buffer: Buffer) => string | undefined): typeof usualToJson {
  return function (this: Buffer, ...key: unknown[]): ReturnType<typeof usualToJson> {
    const text = key.length === 1 && typeof key[0] === 'string' ? replace(this) : undefined;
    if (text === undefined) return usualToJson.call(this);
    return { type: 'Buffer', data: text as unknown as number[] };
  };
}

/** The bytes by which a marker is known, as a string: a map compares strings by value. */
function keyText(marker: Uint8Array): string {
  const { buffer, byteOffset, byteLength } = marker;
  const length = Math.min(byteLength, MARKER_KEY_BYTES);
  return Buffer.from(buffer, byteOffset, length).toString('latin1');
}

let shared: IpcHooks | undefined;

/** The hooks of this environment, put in place at the first use. */
export function ipcHooks(): IpcHooks {
  shared ??= new IpcHooks();
  return shared;
}
