// A loan of a topic: an unpublished message, written in place in the memory that all subscribers map.
import type { WaitOptions } from '../../channel/options.js';
import { checkInteger } from '../../core/check.js';
import { UkshmError } from '../../core/errors.js';
import type { TopicChunk } from './region.js';

/** How much of a loan is published. */
export interface PublishLoanOptions {
  /** The message's length, if less than what was lent. 0 to `lengthBytes`. */
  readonly lengthBytes?: number;
}

/** An unpublished message: write into `bytes`, then publish or `discard()` it, once. */
export interface TopicLoan {
  /** The memory: what it holds before you write is undefined. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  /**
   * Publishes it before this returns, unless a subscriber may block and does: then waits.
   * @throws UkshmError `ERR_UKSHM_LOAN_USED`, `ERR_UKSHM_CLOSED`; the signal's reason: it is then a
   * loan still.
   */
  publish(options?: PublishLoanOptions & WaitOptions): Promise<void>;
  /**
   * Publishes it now.
   * @returns `false` while a subscriber blocks or others wait to publish: it is a loan still.
   */
  tryPublish(options?: PublishLoanOptions): boolean;
  /** Gives the memory back unpublished. */
  discard(): void;
  [Symbol.dispose](): void;
}

/** Whose loan it is. */
export interface TopicLoanOwner {
  tryPublishLoan(loan: OpenLoan, lengthBytes: number): boolean;
  publishLoan(loan: OpenLoan, lengthBytes: number, signal: AbortSignal | undefined): Promise<void>;
  onDiscard(): void;
}

const OPEN = 0;
const PUBLISHING = 1;
const PUBLISHED = 2;
const DISCARDED = 3;

export class OpenLoan implements TopicLoan {
  readonly bytes: Uint8Array;
  /** Where the bytes lie; small ones are copied to each subscriber anyway and lie in no chunk. */
  readonly chunk: TopicChunk | undefined;
  readonly #owner: TopicLoanOwner;
  #state = OPEN;

  constructor(owner: TopicLoanOwner, bytes: Uint8Array, chunk: TopicChunk | undefined) {
    this.#owner = owner;
    this.bytes = bytes;
    this.chunk = chunk;
  }

  get lengthBytes(): number {
    return this.bytes.length;
  }

  async publish(options?: PublishLoanOptions & WaitOptions): Promise<void> {
    const lengthBytes = this.#begin(options);
    this.#state = PUBLISHING;
    try {
      await this.#owner.publishLoan(this, lengthBytes, options?.signal);
      this.#state = PUBLISHED;
    } catch (error) {
      this.#state = OPEN;
      throw error;
    }
  }

  tryPublish(options?: PublishLoanOptions): boolean {
    const lengthBytes = this.#begin(options);
    if (!this.#owner.tryPublishLoan(this, lengthBytes)) return false;
    this.#state = PUBLISHED;
    return true;
  }

  discard(): void {
    if (this.#state === DISCARDED) return;
    if (this.#state !== OPEN) throw this.#used();
    this.#state = DISCARDED;
    this.chunk?.drop();
    this.#owner.onDiscard();
  }

  [Symbol.dispose](): void {
    if (this.#state === OPEN) this.discard();
  }

  #begin(options: PublishLoanOptions | undefined): number {
    if (this.#state !== OPEN) throw this.#used();
    const lengthBytes = options?.lengthBytes ?? this.lengthBytes;
    return checkInteger('lengthBytes', lengthBytes, 0, this.lengthBytes);
  }

  #used(): UkshmError {
    const what = ['', 'is being published', 'was published before', 'was discarded before'];
    return new UkshmError('ERR_UKSHM_LOAN_USED', `this loan ${what[this.#state]}`);
  }
}
