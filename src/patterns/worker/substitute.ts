// Large ArrayBuffers in what is posted to another thread, copied once and then moved.
//
// Node's structured clone writes them into a buffer that grows as it goes, and copies them out of
// it on the other side. Here they are copied once, by the sender; the copy is transferred, and Node
// clones the rest. What arrives is the same, so the receiver has no part in it.
import { types } from 'node:util';
import v8 from 'node:v8';

/** From this length on an ArrayBuffer is copied here. */
export const BUFFER_BYTES_MIN = 131072;
/** So many values are looked at before the first large one is found … */
const SEARCH_VALUES_MAX = 1000;
/** … and then to make sure that all are plain. */
const VALUES_MAX = 100000;

/** A message and its transfer list, in place of others that mean the same. */
export interface Substitute {
  readonly message: unknown;
  readonly transfer: readonly object[];
}

/**
 * @param allocate - a new ArrayBuffer for a copy.
 * @returns `undefined` where Node's own way is best, or the only one: nothing large, or something
 * that is not plain data (getters, proxies, instances of classes, ports, functions).
 */
export function substitute(
  message: unknown,
  transfer: readonly object[],
  allocate: (lengthBytes: number) => ArrayBuffer,
): Substitute | undefined {
  if (typeof message !== 'object' || message === null) return undefined;
  const found = buffersIn(message, new Set(transfer));
  if (found === undefined) return undefined;
  const copies = found.large.map((buffer) => allocate(buffer.byteLength));
  try {
    const substituted = cloneAround(
      message,
      [...found.large, ...found.transferred],
      [...copies, ...found.transferred],
    );
    for (const [i, buffer] of found.large.entries()) {
      new Uint8Array(copies[i] as ArrayBuffer).set(new Uint8Array(buffer));
    }
    return { message: substituted, transfer: [...transfer, ...copies] };
  } catch {
    // Node says what is wrong with it.
    return undefined;
  }
}

interface Found {
  readonly large: ArrayBuffer[];
  /** Those that the program itself transfers. */
  readonly transferred: ArrayBuffer[];
}

/** The buffers that a message refers to, if there are large ones and all else is plain data. */
function buffersIn(message: object, transfer: ReadonlySet<object>): Found | undefined {
  const found: Found = { large: [], transferred: [] };
  const values = new Values(message);
  for (const value of values.objects) {
    if (values.count > (found.large.length > 0 ? VALUES_MAX : SEARCH_VALUES_MAX)) return undefined;
    if (types.isAnyArrayBuffer(value)) {
      if (!note(value, transfer, found)) return undefined;
    } else if (ArrayBuffer.isView(value)) values.add(value.buffer);
    else if (!addMembers(value, values)) return undefined;
  }
  return found.large.length > 0 ? found : undefined;
}

/** What a message refers to, each object once. */
class Values {
  readonly objects: Set<object>;
  count = 1;

  constructor(message: object) {
    this.objects = new Set([message]);
  }

  /** @returns `false` if only Node can say what becomes of it. */
  add(value: unknown): boolean {
    this.count++;
    if (typeof value === 'object' && value !== null) this.objects.add(value);
    return typeof value !== 'function' && typeof value !== 'symbol';
  }
}

/** @returns `false` if this is one that only Node can clone. */
function note(
  buffer: ArrayBuffer | SharedArrayBuffer,
  transfer: ReadonlySet<object>,
  found: Found,
): boolean {
  // v8's public deserializer cannot be given shared ones.
  if (types.isSharedArrayBuffer(buffer)) return false;
  if (transfer.has(buffer)) found.transferred.push(buffer);
  else if ((buffer as { resizable?: boolean }).resizable === true) return false;
  else if (buffer.byteLength >= BUFFER_BYTES_MIN) found.large.push(buffer);
  return true;
}

/** Adds what plain data refers to. @returns `false` if this is none. */
function addMembers(value: object, values: Values): boolean {
  if (types.isProxy(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null || Array.isArray(value)) {
    if (Array.isArray(value) && value.length > VALUES_MAX) return false;
    for (const key of Object.keys(value)) {
      const property = Object.getOwnPropertyDescriptor(value, key);
      if (property === undefined || property.get !== undefined) return false;
      if (!values.add(property.value)) return false;
    }
    return true;
  }
  if (types.isMap(value)) {
    for (const [key, one] of Map.prototype.entries.call(value)) {
      if (!values.add(key) || !values.add(one)) return false;
    }
    return true;
  }
  if (types.isSet(value)) {
    for (const one of Set.prototype.values.call(value)) if (!values.add(one)) return false;
    return true;
  }
  return types.isDate(value) || types.isRegExp(value);
}

/** A structured clone that refers to `replacements` where the message refers to `buffers`. */
function cloneAround(
  message: object,
  buffers: readonly ArrayBuffer[],
  replacements: readonly ArrayBuffer[],
): unknown {
  const serializer = new v8.Serializer();
  for (const [number, buffer] of buffers.entries()) serializer.transferArrayBuffer(number, buffer);
  serializer.writeHeader();
  serializer.writeValue(message);
  const deserializer = new v8.Deserializer(serializer.releaseBuffer());
  for (const [number, buffer] of replacements.entries()) {
    deserializer.transferArrayBuffer(number, buffer);
  }
  deserializer.readHeader();
  return deserializer.readValue();
}
