// Messages that came before an awaited reply while nobody read the channel: they wait here, in
// order, for whoever reads it next. Small ones are private copies, so they do not hold up the ring.
import { UkshmError } from '../core/errors.js';
import type { ReceivedMessage } from './message.js';

/** What may wait, its bookkeeping included. */
const BYTES_MAX = 16 * 2 ** 20;
const BYTES_PER_MESSAGE = 256;

export class Aside {
  readonly #queue: ReceivedMessage[] = [];
  #bytes = 0;

  get count(): number {
    return this.#queue.length;
  }

  /** @throws UkshmError `ERR_UKSHM_LIMIT` when this message was one too many; it is kept all the same. */
  push(message: ReceivedMessage): void {
    this.#queue.push(message);
    this.#bytes += message.lengthBytes + BYTES_PER_MESSAGE;
    if (this.#bytes <= BYTES_MAX) return;
    throw new UkshmError(
      'ERR_UKSHM_LIMIT',
      `${this.#queue.length} messages came before the reply and nobody reads them: read the ` +
        'channel while you wait for replies, or ask over a channel of its own',
    );
  }

  shift(): ReceivedMessage | undefined {
    const message = this.#queue.shift();
    if (message !== undefined) this.#bytes -= message.lengthBytes + BYTES_PER_MESSAGE;
    return message;
  }
}
