// Received messages, in place in the sender's pages.
//
// A living sender can change these bytes at any time. Whatever measures first and writes after
// (text decoders) must work on a copy: `text()` and `json()` do.
import { UkshmError } from '../core/errors.js';
import { copyLongs, LongView } from '../memory/long-view.js';
import { HeldRecord, RecordCursor } from '../ring/consumer.js';
import type { Channel } from './channel.js';

/** A received message: readable in place until `release()`. Writing to it ends the process. */
export interface Message {
  /** The bytes in place, read-only; a sender that is still alive can change them. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  /** 0 to 65 533, as the sender chose. */
  readonly type: number;
  /** The sender's correlation id, a u32. */
  readonly id: number;
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
  forward(to: Channel, options?: { readonly signal?: AbortSignal }): Promise<void>;
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
}

/** In place of a lease number: the message is a record of the ring. */
export const INLINE: number = -1;

/** Whose channel a message came through: what a message asks of its receiver. */
export interface MessageOwner {
  readonly closed: boolean;
  closedError(): UkshmError;
  take(): Message;
  release(message: ReceivedMessage): void;
  forward(message: ReceivedMessage, to: Channel, signal: AbortSignal | undefined): Promise<void>;
}

/** Messages up to this are copied out by 64-bit words. */
const LONG_COPY_BYTES_MAX = 256;

export class DrainCursor extends RecordCursor implements MessageCursor {
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

  take(): Message {
    return this.#owner.take();
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
  readonly offset: number;
  /** The sender's lease number, or `INLINE`. */
  readonly lease: number;
  readonly generation: number;
  /** 0: the peer's own outbox; else the number of a region that it forwards from. */
  readonly region: number;
  readonly #owner: MessageOwner;
  readonly #memory: Uint8Array;
  #bytes: Uint8Array | undefined = undefined;
  #state = HELD;

  constructor(
    owner: MessageOwner,
    at: RecordCursor,
    lease: number,
    generation: number,
    region: number,
  ) {
    super();
    this.lengthBytes = at.lengthBytes;
    this.type = at.type;
    this.id = at.id;
    this.offset = at.offset;
    this.lease = lease;
    this.generation = generation;
    this.region = region;
    this.#owner = owner;
    this.#memory = at.memory;
  }

  get bytes(): Uint8Array {
    this.#check();
    const { buffer } = this.#memory;
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
  }

  async forward(to: Channel, options?: { readonly signal?: AbortSignal }): Promise<void> {
    this.#check();
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

  #check(): void {
    if (this.#owner.closed) throw this.#owner.closedError();
    if (this.#state === HELD) return;
    const what = this.#state === RELEASED ? 'released' : 'forwarded';
    throw new UkshmError(
      'ERR_UKSHM_MESSAGE_RELEASED',
      `the message was ${what}: its memory is not ours to read; copy() it before`,
    );
  }
}
