// Reads a message in full, as every subject does: copied out, and one word of the copy looked at.
import type { MessageCursor } from '../../src/index.js';
import { addressOf, PAGE_BYTES } from '../../src/sys/memory.js';
import { Payload } from './common.js';

/**
 * A payload that starts at a page, as those of the C programs do: copies of 1 MiB from it are half
 * as fast again.
 */
export function alignedPayload(size: number): Payload {
  const buffer = new ArrayBuffer(size + PAGE_BYTES);
  const at = -addressOf(new Uint8Array(buffer)) & (PAGE_BYTES - 1);
  return new Payload(size, buffer, at);
}

/** Copies each message out and keeps its last word. */
export class Inbox {
  readonly copy: Payload;
  word = 0;
  readonly handler: (message: MessageCursor) => void;

  constructor(size: number) {
    this.copy = alignedPayload(size);
    this.handler = (message) => {
      message.copyTo(this.copy.bytes);
      this.word = this.copy.word;
    };
  }
}
