// `for await` over a channel: hand-written, because an async generator costs twice as much.
import type { Message } from './message.js';

/** What an iterator needs of its channel. */
export interface MessageSource {
  /** Makes this iterator the channel's one consumer. @throws UkshmError `ERR_UKSHM_BUSY`. */
  readonly claim: () => void;
  readonly unclaim: () => void;
  /** The next message that is there now, unless others should have their turn. */
  readonly take: () => Message | undefined;
  /** Resolves when `take` is worth a try, or `false` at the end. */
  readonly readable: () => Promise<boolean>;
}

export class MessageIterator implements AsyncIterator<Message> {
  readonly #source: MessageSource;
  #state: 'new' | 'open' | 'done' = 'new';

  constructor(source: MessageSource) {
    this.#source = source;
  }

  next(): Promise<IteratorResult<Message>> {
    try {
      if (this.#state !== 'open') {
        if (this.#state === 'done') return this.#done();
        this.#source.claim();
        this.#state = 'open';
      }
      const message = this.#source.take();
      if (message !== undefined) return Promise.resolve({ done: false, value: message });
    } catch (error) {
      this.#finish();
      return Promise.reject(error);
    }
    return this.#wait();
  }

  /** `break` in a loop: the channel stays open. */
  return(): Promise<IteratorResult<Message>> {
    return this.#done();
  }

  async #wait(): Promise<IteratorResult<Message>> {
    try {
      for (;;) {
        if (!(await this.#source.readable())) return await this.#done();
        const message = this.#source.take();
        if (message !== undefined) return { done: false, value: message };
      }
    } catch (error) {
      this.#finish();
      throw error;
    }
  }

  #done(): Promise<IteratorResult<Message>> {
    this.#finish();
    return Promise.resolve({ done: true, value: undefined });
  }

  #finish(): void {
    if (this.#state === 'open') this.#source.unclaim();
    this.#state = 'done';
  }
}
