// What a subscriber reads: messages of a topic, in place, with their numbers.
import type { Message, MessageCursor } from '../../channel/message.js';

/** A message of a topic: readable in place until `release()`. Writing to it ends the process. */
export interface TopicMessage {
  /** The name of the topic. */
  readonly topic: string;
  /** Its number at the publisher: a u32, which wraps to 0. */
  readonly sequence: number;
  /** How many messages were lost to this subscriber right before it. */
  readonly missed: number;
  /** The bytes in place, read-only; a publisher that is still alive can change them. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  /** The bytes as UTF-8, decoded from a copy. */
  text(): string;
  /** The bytes as JSON, parsed from a copy. @throws SyntaxError. */
  json(): unknown;
  /** A writable copy that nobody else can change. */
  copy(): Uint8Array;
  /** Gives the memory back to the publisher; in any order, once or more often. */
  release(): void;
  [Symbol.dispose](): void;
}

/** The message that a synchronous `drain` is at. Valid only inside the handler. */
export interface TopicCursor {
  readonly sequence: number;
  readonly missed: number;
  /** The memory that holds the message, read-only: the ring, or the topic's. */
  readonly memory: Uint8Array;
  /** Where the message starts in `memory`. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** The bytes in place; allocates a view at each use. */
  readonly bytes: Uint8Array;
  /** Copies the message to the start of `target`; as `MessageCursor.copyTo`. */
  copyTo(target: Uint8Array): number;
  /** Keeps the message beyond the handler; it must then be released. */
  take(): TopicMessage;
}

export class NumberedMessage implements TopicMessage {
  readonly topic: string;
  readonly sequence: number;
  readonly missed: number;
  readonly #message: Message;

  constructor(topic: string, message: Message, missed: number) {
    this.topic = topic;
    this.sequence = message.id;
    this.missed = missed;
    this.#message = message;
  }

  get bytes(): Uint8Array {
    return this.#message.bytes;
  }

  get lengthBytes(): number {
    return this.#message.lengthBytes;
  }

  text(): string {
    return this.#message.text();
  }

  json(): unknown {
    return this.#message.json();
  }

  copy(): Uint8Array {
    return this.#message.copy();
  }

  release(): void {
    this.#message.release();
  }

  [Symbol.dispose](): void {
    this.#message.release();
  }
}

/** A channel's cursor with a topic's numbers: one object, used again. */
export class NumberedCursor implements TopicCursor {
  readonly #topic: string;
  #at: MessageCursor;
  missed = 0;

  constructor(topic: string, at: MessageCursor) {
    this.#topic = topic;
    this.#at = at;
  }

  point(at: MessageCursor, missed: number): void {
    this.#at = at;
    this.missed = missed;
  }

  get sequence(): number {
    return this.#at.id;
  }

  get memory(): Uint8Array {
    return this.#at.memory;
  }

  get offset(): number {
    return this.#at.offset;
  }

  get lengthBytes(): number {
    return this.#at.lengthBytes;
  }

  get bytes(): Uint8Array {
    return this.#at.bytes;
  }

  copyTo(target: Uint8Array): number {
    return this.#at.copyTo(target);
  }

  take(): TopicMessage {
    return new NumberedMessage(this.#topic, this.#at.take(), this.missed);
  }
}
