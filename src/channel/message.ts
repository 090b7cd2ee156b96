// Received messages, in place in the sender's pages.
//
// A living sender can change these bytes at any time. Whatever measures first and writes after
// (text decoders) must work on a copy: `text()` and `json()` do.
import { UkshmError } from '../core/errors.js';
import { copyLongs, LongView } from '../memory/long-view.js';
import type { Mapping } from '../memory/mapping.js';
import { HeldRecord, RecordCursor } from '../ring/consumer.js';
import type { Channel } from './channel.js';
import { alreadyReplied, cannotForwardRequest, noReply, notARequest } from './ends.js';
import type { Loan } from './loan.js';
import type { ReplyOptions, WaitOptions } from './options.js';

const NOTHING = new Uint8Array(0);

/** A received message: readable in place until `release()`. Writing to it ends the process. */
export interface Message {
  /** The bytes in place, read-only; a sender that is still alive can change them. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  /** 0 to 16 383, as the sender chose. */
  readonly type: number;
  /** The sender's correlation id, a u32. */
  readonly id: number;
  /** Whether the sender waits for a `reply`. */
  readonly isRequest: boolean;
  /** The bytes as UTF-8, decoded from a copy. */
  text(): string;
  /** The bytes as JSON, parsed from a copy. @throws SyntaxError. */
  json(): unknown;
  /** A writable copy that nobody else can change. */
  copy(): Uint8Array;
  /** Gives the memory back to its sender; in any order, once or more often. */
  release(): void;
  /**
   * Hands the message on to another channel without a copy, and gives up this side's hold; its
   * sender gets the memory back when the next one releases it. Waits while that channel is full.
   *
   * @throws UkshmError `ERR_UKSHM_CANNOT_FORWARD`, or why the other channel ended; the message is
   * then still held here.
   */
  forward(to: Channel, options?: WaitOptions): Promise<void>;
  /**
   * Answers a request, once, and releases it; waits while the channel is full. The body may be a
   * loan of the same channel, written in place. A request that is released without a reply is
   * answered by an error.
   *
   * @throws UkshmError `ERR_UKSHM_NOT_A_REQUEST`, `ERR_UKSHM_ALREADY_REPLIED`,
   * `ERR_UKSHM_MESSAGE_TOO_LONG`, or why the channel ended.
   */
  reply(body?: Uint8Array | Loan, options?: ReplyOptions): Promise<void>;
  /** Answers a request by an error, which the other side's `request` then rejects with. */
  refuse(error: unknown): void;
  [Symbol.dispose](): void;
}

/** The message that a synchronous `drain` is at. Valid only inside the handler. */
export interface MessageCursor {
  /** The memory that holds the message: a sender's whole outbox, read-only. */
  readonly memory: Uint8Array;
  /** Where the message starts in `memory`. */
  readonly offset: number;
  readonly lengthBytes: number;
  readonly type: number;
  readonly id: number;
  /** Whether the sender waits for a reply: `take()` or `detach()` the message for it. */
  readonly isRequest: boolean;
  /** The bytes in place; allocates a view at each use. */
  readonly bytes: Uint8Array;
  /**
   * Copies the message to the start of `target`: for small ones faster than `bytes`, above all
   * into the same `target` again and again.
   * @returns the number of bytes copied, `lengthBytes`.
   * @throws RangeError when `target` is shorter than the message.
   */
  copyTo(target: Uint8Array): number;
  /**
   * Keeps the message beyond the handler; it must then be released.
   * @throws UkshmError `ERR_UKSHM_MESSAGE_RELEASED` behind the handler, and when taken before.
   */
  take(): Message;
  /**
   * As `take`, but a small message is copied out of the ring, so that it holds up nothing behind
   * it however long it is kept.
   */
  detach(): Message;
}

/** In place of a lease number: the message is a record of the ring. */
export const INLINE: number = -1;
/** In place of a lease number: the message is a private copy, which nobody waits for. */
export const PRIVATE: number = -2;

/** Whose channel a message came through: what a message asks of its receiver. */
export interface MessageOwner {
  readonly closed: boolean;
  closedError(): UkshmError;
  take(): Message;
  detach(): Message;
  release(message: ReceivedMessage): void;
  forward(message: ReceivedMessage, to: Channel, signal: AbortSignal | undefined): Promise<void>;
  answer(
    request: ReceivedMessage,
    body: Uint8Array | Loan,
    options: ReplyOptions | undefined,
  ): Promise<void>;
  refuse(id: number, error: unknown): void;
}

/** Messages up to this are copied out by 64-bit words. */
const LONG_COPY_BYTES_MAX = 256;

export class DrainCursor extends RecordCursor implements MessageCursor {
  isRequest = false;
  readonly #owner: MessageOwner;
  readonly #target: LongView = new LongView();
  constructor(owner: MessageOwner, memory: Uint8Array, longs: BigInt64Array) {
    super(memory, longs);
    this.#owner = owner;
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.memory.buffer as ArrayBuffer, this.offset, this.lengthBytes);
  }

  copyTo(target: Uint8Array): number {
    const lengthBytes = this.lengthBytes;
    const longs = this.#target.of(target);
    const count = lengthBytes >> 3;
    if (count > longs.length || lengthBytes > LONG_COPY_BYTES_MAX || (this.offset & 7) !== 0) {
      target.set(this.bytes);
      return lengthBytes;
    }
    copyLongs(this.longs, this.offset >> 3, longs, 0, count);
    if ((lengthBytes & 7) !== 0) this.#copyRest(target, count << 3);
    return lengthBytes;
  }

  /** The bytes, private. */
  copy(): Uint8Array {
    return this.memory.slice(this.offset, this.offset + this.lengthBytes);
  }

  /** Points at a message that was received before. */
  pointAt(message: ReceivedMessage): void {
    const { memory, offset, lengthBytes, type, id, isRequest } = message;
    this.memory = memory;
    this.longs = new BigInt64Array(memory.buffer, memory.byteOffset, memory.length >> 3);
    Object.assign(this, { offset, lengthBytes, type, id, isRequest });
  }

  /** Back to the peer's outbox. */
  reset(mapping: Mapping): void {
    this.memory = mapping.bytes;
    this.longs = mapping.longs;
    this.isRequest = false;
  }

  take(): Message {
    return this.#owner.take();
  }

  detach(): Message {
    return this.#owner.detach();
  }

  #copyRest(target: Uint8Array, from: number): void {
    if (target.length < this.lengthBytes) throw new RangeError('the target is too short');
    for (let i = from; i < this.lengthBytes; i++) {
      target[i] = this.memory[this.offset + i] as number;
    }
  }
}

const HELD = 0;
const RELEASED = 1;
const FORWARDED = 2;

export class ReceivedMessage extends HeldRecord implements Message {
  readonly lengthBytes: number;
  readonly type: number;
  readonly id: number;
  readonly isRequest: boolean;
  readonly offset: number;
  /** The sender's lease number, `INLINE` or `PRIVATE`. */
  readonly lease: number;
  readonly generation: number;
  /** 0: the peer's own outbox; else the number of a region that it forwards from. */
  readonly region: number;
  readonly #owner: MessageOwner;
  /** What holds the message, from its start. */
  readonly memory: Uint8Array;
  #bytes: Uint8Array | undefined = undefined;
  #state = HELD;
  #answered = false;

  /** @param copy - of a private message: its bytes. */
  constructor(
    owner: MessageOwner,
    at: DrainCursor,
    lease: number,
    generation: number,
    region: number,
    copy?: Uint8Array,
  ) {
    super();
    this.lengthBytes = at.lengthBytes;
    this.type = at.type;
    this.id = at.id;
    this.isRequest = at.isRequest;
    this.lease = lease;
    this.generation = generation;
    this.region = region;
    this.#owner = owner;
    this.offset = copy === undefined ? at.offset : 0;
    this.memory = copy ?? at.memory;
  }

  get bytes(): Uint8Array {
    this.#check();
    // A small private copy lies within V8's own heap as long as nobody asks for its buffer.
    if (this.lease === PRIVATE) return this.memory;
    const { buffer } = this.memory;
    this.#bytes ??= new Uint8Array(buffer as ArrayBuffer, this.offset, this.lengthBytes);
    return this.#bytes;
  }

  text(): string {
    return Buffer.from(this.bytes).toString('utf8');
  }

  json(): unknown {
    return JSON.parse(this.text());
  }

  copy(): Uint8Array {
    return new Uint8Array(this.bytes);
  }

  release(): void {
    if (this.#state !== HELD) return;
    this.#state = RELEASED;
    this.#bytes = undefined;
    this.#owner.release(this);
    if (this.isRequest && !this.#answered) this.#owner.refuse(this.id, noReply());
  }

  reply(body: Uint8Array | Loan = NOTHING, options?: ReplyOptions): Promise<void> {
    try {
      this.#answer();
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#owner.answer(this, body, options).catch((error) => {
      // Its signal came first, or the body was too long: there still may be an answer.
      this.#answered = false;
      throw error;
    });
  }

  refuse(error: unknown): void {
    this.#answer();
    this.#owner.refuse(this.id, error);
    this.release();
  }

  async forward(to: Channel, options?: WaitOptions): Promise<void> {
    this.#check();
    if (this.isRequest) throw cannotForwardRequest();
    this.#state = FORWARDED;
    try {
      await this.#owner.forward(this, to, options?.signal);
      this.#bytes = undefined;
    } catch (error) {
      this.#state = HELD;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /** Marks the request as answered; refused for anything else, and the second time. */
  #answer(): void {
    if (!this.isRequest) throw notARequest();
    if (this.#answered || this.#state !== HELD) throw alreadyReplied(this.#answered);
    this.#answered = true;
  }

  #check(): void {
    if (this.#owner.closed && this.lease !== PRIVATE) throw this.#owner.closedError();
    if (this.#state === HELD) return;
    const what = this.#state === RELEASED ? 'released' : 'forwarded';
    throw new UkshmError(
      'ERR_UKSHM_MESSAGE_RELEASED',
      `the message was ${what}: its memory is not ours to read; copy() it before`,
    );
  }
}
