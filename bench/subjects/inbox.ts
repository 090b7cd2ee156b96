// Reads a message in full, as every subject does: copied out, and one word of the copy looked at.
import type { MessageCursor } from '../../src/index.js';
import { Payload } from './common.js';

/** Up to here a loop over words beats `set`, which is a flat 17 ns. */
const WORD_COPY_MAX = 256;

/** Copies each message out and keeps its last word. */
export class Inbox {
  readonly copy: Payload;
  count = 0;
  word = 0;
  readonly handler: (message: MessageCursor) => void;
  #memory: Uint8Array | undefined = undefined;
  #words: Int32Array = new Int32Array(0);

  constructor(size: number) {
    this.copy = new Payload(size);
    this.handler = size <= WORD_COPY_MAX ? this.#byWords.bind(this) : this.#bySet.bind(this);
  }

  #byWords(message: MessageCursor): void {
    if (message.memory !== this.#memory) this.#use(message.memory);
    const from = this.#words;
    const to = this.copy.words;
    const count = message.lengthBytes >> 2;
    const at = message.offset >> 2;
    let i = 0;
    for (; i + 8 <= count; i += 8) {
      to[i] = from[at + i];
      to[i + 1] = from[at + i + 1];
      to[i + 2] = from[at + i + 2];
      to[i + 3] = from[at + i + 3];
      to[i + 4] = from[at + i + 4];
      to[i + 5] = from[at + i + 5];
      to[i + 6] = from[at + i + 6];
      to[i + 7] = from[at + i + 7];
    }
    for (; i < count; i++) to[i] = from[at + i];
    this.word = to[count - 1];
    this.count++;
  }

  #bySet(message: MessageCursor): void {
    const copy = this.copy;
    copy.bytes.set(message.bytes);
    this.word = copy.word;
    this.count++;
  }

  #use(memory: Uint8Array): void {
    this.#memory = memory;
    this.#words = new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength >> 2);
  }
}
