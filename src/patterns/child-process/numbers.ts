// Mode 'json': what stands for a Buffer's numbers on the way, and the numbers.
import { peerMisbehaved } from '../../core/errors.js';

/** Arrays made with more elements than this are slow hash tables in V8. */
const DENSE_LENGTH_MAX = 33554432;

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
