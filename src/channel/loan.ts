// A loan: an unsent message, written in place in the sender's own outbox.
import { checkInteger } from '../core/check.js';
import { UkshmError } from '../core/errors.js';

/** How `send` may differ from the usual. */
export interface SendLoanOptions {
  /** The message's length, if less than what was lent. 0 to `lengthBytes`. */
  readonly lengthBytes?: number;
  /** `false`: the peer sees it at the next `publish()`, together with others. Default true. */
  readonly publish?: boolean;
}

/** An unsent message: write into `bytes`, then `send()` or `discard()`, once. */
export interface Loan {
  /** The memory in place: what it holds before you write is undefined. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  /** @throws UkshmError `ERR_UKSHM_LOAN_USED`, or why the channel ended. */
  send(options?: SendLoanOptions): void;
  /** Gives the memory back unsent. */
  discard(): void;
  [Symbol.dispose](): void;
}

/** Whose memory is lent: what a loan asks of its sender. */
export interface LoanOwner {
  view(offset: number, lengthBytes: number): Uint8Array;
  commitInline(lengthBytes: number, type: number, id: number): void;
  commitChunk(chunk: number, lengthBytes: number, type: number, id: number): void;
  discardInline(): void;
  discardChunk(chunk: number): void;
  publish(): void;
}

const OPEN = 0;
const SENT = 1;
const DISCARDED = 2;

export class OutboxLoan implements Loan {
  readonly lengthBytes: number;
  /** Whose memory it is. */
  readonly owner: LoanOwner;
  readonly #offset: number;
  /** The chunk's first granule in the arena; -1: the loan is an inline record. */
  readonly #chunk: number;
  readonly #type: number;
  readonly #id: number;
  #bytes: Uint8Array | undefined = undefined;
  #state = OPEN;

  constructor(
    owner: LoanOwner,
    offset: number,
    lengthBytes: number,
    chunk: number,
    type: number,
    id: number,
  ) {
    this.owner = owner;
    this.#offset = offset;
    this.lengthBytes = lengthBytes;
    this.#chunk = chunk;
    this.#type = type;
    this.#id = id;
  }

  get bytes(): Uint8Array {
    this.#bytes ??= this.owner.view(this.#offset, this.lengthBytes);
    return this.#bytes;
  }

  send(options?: SendLoanOptions): void {
    this.sendAs(this.#type, this.#id, options?.lengthBytes, options?.publish ?? true);
  }

  /** As `send`, with a record type (kinds.ts) and an id that are known only now. */
  sendAs(recordType: number, id: number, length: number | undefined, publish: boolean): void {
    if (this.#state !== OPEN) throw this.#used();
    const lengthBytes = length ?? this.lengthBytes;
    if (length !== undefined) checkInteger('lengthBytes', length, 0, this.lengthBytes);
    if (this.#chunk < 0) this.owner.commitInline(lengthBytes, recordType, id);
    else this.owner.commitChunk(this.#chunk, lengthBytes, recordType, id);
    this.#state = SENT;
    if (publish) this.owner.publish();
  }

  discard(): void {
    if (this.#state === DISCARDED) return;
    if (this.#state !== OPEN) throw this.#used();
    this.#state = DISCARDED;
    if (this.#chunk < 0) this.owner.discardInline();
    else this.owner.discardChunk(this.#chunk);
  }

  [Symbol.dispose](): void {
    if (this.#state === OPEN) this.discard();
  }

  #used(): UkshmError {
    const what = this.#state === SENT ? 'sent' : 'discarded';
    return new UkshmError('ERR_UKSHM_LOAN_USED', `this loan was ${what} before`);
  }
}
