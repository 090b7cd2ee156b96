// Mode 'json': what stands for a Buffer's numbers on the way, and the numbers.
import { types } from 'node:util';
import { peerMisbehaved } from '../../core/errors.js';
import { PART_BYTES_MIN } from './search.js';

/** Arrays made with more elements than this are slow hash tables in V8. */
const DENSE_LENGTH_MAX = 33554432;
/** What lies deeper is left to Node; so is what holds itself. */
const DEPTH_MAX = 100;
const usualToJson = Buffer.prototype.toJSON;

/** Where numbers belong: `{ type: 'Buffer', data: '<key>:<part>:<length>' }`. */
export interface Placeholder {
  readonly part: number;
  readonly lengthBytes: number;
  readonly buffer: { data: unknown };
}

/** What `data` is in place of numbers: nobody but those who know the key can make one. */
export function placeholderText(key: Uint8Array, part: number, lengthBytes: number): string {
  return `${hex(key)}:${part}:${lengthBytes}`;
}

/**
 * A message that JSON makes the same of, with `replace` asked what stands for the numbers of each
 * large Buffer in it. Only what leads to one is copied.
 * @returns the message itself where nothing was replaced.
 */
export function withPlaceholders(
  message: unknown,
  replace: (buffer: Uint8Array) => string | undefined,
  depth: number = 0,
): unknown {
  if (typeof message !== 'object' || message === null || depth > DEPTH_MAX) return message;
  if (isLargeBuffer(message)) {
    const data = replace(message);
    return data === undefined ? message : { type: 'Buffer', data };
  }
  // What makes its own JSON is asked for it by Node; what is no plain data may not be looked into.
  if (types.isProxy(message) || ArrayBuffer.isView(message) || 'toJSON' in message) return message;
  let copy: Record<string, unknown> | undefined;
  for (const [key, property] of enumerable(message)) {
    const value = withPlaceholders(property.value, replace, depth + 1);
    if (value === property.value) continue;
    copy ??= shallowCopy(message);
    copy[key] = value;
  }
  return copy ?? message;
}

/** The properties that JSON looks at, as far as they are data. */
function enumerable(message: object): [string, PropertyDescriptor][] {
  const properties: [string, PropertyDescriptor][] = [];
  for (const key of Object.keys(message)) {
    const property = Object.getOwnPropertyDescriptor(message, key);
    // A getter would have to be called for a copy, and then again.
    if (property === undefined || property.get !== undefined) return [];
    properties.push([key, property]);
  }
  return properties;
}

/** What JSON sees the same in; nothing that is inherited, so that each key is one like others. */
function shallowCopy(message: object): Record<string, unknown> {
  if (Array.isArray(message)) return [...message] as unknown as Record<string, unknown>;
  return Object.assign(Object.create(null), message) as Record<string, unknown>;
}

function isLargeBuffer(value: object): value is Buffer {
  return Buffer.isBuffer(value) && value.length >= PART_BYTES_MIN && value.toJSON === usualToJson;
}

/**
 * All placeholders of `key` in a message that JSON.parse made, in the order of their parts.
 * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`.
 */
export function placeholdersIn(message: unknown, key: Uint8Array): Placeholder[] {
  const prefix = `${hex(key)}:`;
  const found: Placeholder[] = [];
  const open: unknown[] = [message];
  while (open.length > 0) {
    const value = open.pop();
    if (typeof value !== 'object' || value === null) continue;
    const buffer = value as { data: unknown };
    if (typeof buffer.data === 'string' && buffer.data.startsWith(prefix)) {
      found.push(parse(buffer, buffer.data.slice(prefix.length)));
    } else for (const one of Object.values(value)) open.push(one);
  }
  return found.sort((a, b) => (a.part - b.part) | 0);
}

/** What `Buffer.prototype.toJSON` makes of bytes. */
export function numbersOf(bytes: Uint8Array): number[] {
  const { length } = bytes;
  const dense = Math.min(length, DENSE_LENGTH_MAX);
  const numbers = new Array<number>(dense);
  for (let i = 0; i < dense; i++) numbers[i] = bytes[i] as number;
  for (let i = dense; i < length; i++) numbers.push(bytes[i] as number);
  return numbers;
}

function parse(buffer: { data: unknown }, text: string): Placeholder {
  const match = /^(\d{1,10}):(\d{1,10})$/.exec(text);
  if (match === null) throw peerMisbehaved(`'${text.slice(0, 40)}' in place of a Buffer's numbers`);
  return { part: Number(match[1]), lengthBytes: Number(match[2]), buffer };
}

function hex(key: Uint8Array): string {
  return Buffer.from(key).toString('hex');
}
