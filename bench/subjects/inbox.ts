// Reads a message in full, as every subject does: copied out, and one word of the copy looked at.
import type { MessageCursor } from '../../src/index.js';
import { Payload } from './common.js';

/** Copies each message out and keeps its last word. */
export class Inbox {
  readonly copy: Payload;
  word = 0;
  readonly handler: (message: MessageCursor) => void;

  constructor(size: number) {
    this.copy = new Payload(size);
    this.handler = (message) => {
      message.copyTo(this.copy.bytes);
      this.word = this.copy.word;
    };
  }
}
