// Whether a message holds large parts. Looks without leaving a trace: no getter, trap or toJSON of
// the program's is called.
import { types } from 'node:util';

/** From this length on a part goes through shared memory. */
export const PART_BYTES_MIN = 131072;
/** So many values are looked at; a large part behind them is not seen. */
const VALUES_MAX = 1000;

/** What is looked for: large views and ArrayBuffers, or large Buffers alone (mode 'json'). */
export type Wanted = 'bytes' | 'buffers';

/** How long the large parts of a message are together; 0: there are none. */
export function largeBytesIn(message: unknown, wanted: Wanted): number {
  if (typeof message !== 'object' || message === null) return 0;
  let sum = 0;
  search(message, (value) => {
    if (isLarge(value, wanted)) sum += (value as ArrayBufferView).byteLength;
  });
  return sum;
}

/** Large ArrayBuffers of a message, each once; those that large views look at do not count. */
export function largeBuffersIn(message: object): ArrayBuffer[] {
  const found: ArrayBuffer[] = [];
  search(message, (value) => {
    if (types.isArrayBuffer(value) && isLarge(value, 'bytes')) found.push(value);
  });
  return found;
}

function isLarge(value: object, wanted: Wanted): boolean {
  if (ArrayBuffer.isView(value)) {
    return value.byteLength >= PART_BYTES_MIN && (wanted === 'bytes' || Buffer.isBuffer(value));
  }
  // One that can grow must arrive as one that can grow.
  const plain = types.isArrayBuffer(value) && !(value as { resizable?: boolean }).resizable;
  return wanted === 'bytes' && plain && value.byteLength >= PART_BYTES_MIN;
}

/** Calls `visit` for each object that a message refers to. */
function search(message: object, visit: (value: object) => void): void {
  const objects = new Set<object>([message]);
  let left = VALUES_MAX;
  for (const value of objects) {
    visit(value);
    if (left > 0) left = addMembers(value, objects, left);
  }
}

/** Adds the objects that `value` refers to. @returns how many values may still be looked at. */
function addMembers(value: object, objects: Set<object>, left: number): number {
  if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value) || types.isProxy(value)) {
    return left;
  }
  let rest = left;
  const add = (one: unknown): void => {
    rest--;
    if (typeof one === 'object' && one !== null) objects.add(one);
  };
  if (types.isMap(value)) {
    for (const [key, one] of Map.prototype.entries.call(value)) {
      if (rest <= 0) break;
      add(key);
      add(one);
    }
  } else if (types.isSet(value)) {
    for (const one of Set.prototype.values.call(value)) {
      if (rest <= 0) break;
      add(one);
    }
  } else if (!Array.isArray(value) || value.length <= left) {
    for (const key of Object.keys(value)) {
      if (rest <= 0) break;
      add(Object.getOwnPropertyDescriptor(value, key)?.value);
    }
  }
  return rest;
}
