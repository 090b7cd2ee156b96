// Puts a faster `postMessage` in front of Node's.
import { freshBytes } from '../../memory/fresh-bytes.js';
import { nowMs } from '../../sys/clock.js';
import { BUFFER_BYTES_MIN, substitute } from './substitute.js';

/** A worker or a port. */
interface Poster {
  postMessage: (this: unknown, ...args: unknown[]) => void;
}

/** To post what is larger takes Node longer than this; most else takes a few microseconds. */
const LARGE_POST_MS = 0.02;
/** So many messages in a row without a large part: they are not searched any more. */
const PATIENCE_COUNT = 64;

/**
 * From now on large parts of what is posted here are copied once instead of twice. To search every
 * message would make small ones a fifth slower: they are searched once one was slow to post.
 */
export function quicken(poster: object): void {
  const { postMessage: nodePost } = poster as Poster;
  let searches = 0;
  const value = function postMessage(this: unknown, ...args: unknown[]): void {
    if (searches === 0 && !isLarge(args[0])) {
      const start = nowMs();
      Reflect.apply(nodePost, this, args);
      if (nowMs() - start > LARGE_POST_MS) searches = 1;
      return;
    }
    const transfer = transferOf(args[1]);
    const instead = transfer && substitute(args[0], transfer, allocate);
    searches = instead === undefined ? Math.max(0, searches - 1) : PATIENCE_COUNT;
    Reflect.apply(nodePost, this, instead ? [instead.message, instead.transfer] : args);
  };
  // Not enumerable, like the method that it stands before.
  Object.defineProperty(poster, 'postMessage', { value, writable: true, configurable: true });
}

/** What can be said of a message at a glance. */
function isLarge(message: unknown): boolean {
  const bytes = ArrayBuffer.isView(message) || message instanceof ArrayBuffer ? message : undefined;
  return bytes !== undefined && bytes.byteLength >= BUFFER_BYTES_MIN;
}

function allocate(lengthBytes: number): ArrayBuffer {
  return freshBytes(lengthBytes).buffer as ArrayBuffer;
}

/** The transfer list in what Node takes as second argument; `undefined`: Node shall look at it. */
function transferOf(options: unknown): readonly object[] | undefined {
  if (options === undefined || options === null) return [];
  const list = Array.isArray(options) ? options : (options as { transfer?: unknown }).transfer;
  return Array.isArray(list) ? list : undefined;
}
