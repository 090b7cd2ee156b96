// A subscription: the subscriber's end. Numbers tell what was lost on the way.
import type { Channel } from '../../channel/channel.js';
import { busy } from '../../channel/ends.js';
import type { MessageCursor } from '../../channel/message.js';
import type { CloseReason, WaitOptions } from '../../channel/options.js';
import { UkshmError } from '../../core/errors.js';
import type { Credentials } from '../../sys/socket.js';
import {
  endError,
  join,
  misbehaves,
  noteNumber,
  readNote,
  TYPE_DATA,
  TYPE_END,
} from '../joining.js';
import { MergedTopics } from './merge.js';
import { NumberedCursor, NumberedMessage, type TopicCursor, type TopicMessage } from './message.js';
import { checkWishes, type SubscribeOptions } from './options.js';

/** How a subscription went so far. */
export interface SubscriptionStats {
  /** Messages read, and messages lost before or between them. */
  readonly received: number;
  readonly missed: number;
  /** Messages that were taken and not released: small ones, and others. */
  readonly heldInline: number;
  readonly heldChunks: number;
}

/** Messages of one topic, in order. Made by `subscribe`. */
export class Subscription implements AsyncIterable<TopicMessage> {
  /** The topic's name. */
  readonly topic: string;
  /** The publisher, as the kernel reported it. */
  readonly publisher: Credentials;
  /** How many messages the topic had kept for us: they come first. */
  readonly kept: number;
  /** Resolves when the subscription has ended, and with why. Never rejects. */
  readonly closed: Promise<CloseReason>;
  readonly #channel: Channel;
  #next: number;
  #received = 0;
  #missed = 0;
  #reader = false;
  #handler: ((message: TopicCursor) => void) | undefined = undefined;
  #drained = 0;
  #cursor: NumberedCursor | undefined = undefined;
  #taken: TopicMessage | undefined = undefined;
  /** Why the publisher sends no more. */
  #end: UkshmError | undefined = undefined;

  /** @internal For `subscribe`. @param next - the number of the first message that is sent. */
  constructor(channel: Channel, next: number, kept: number) {
    this.topic = channel.name;
    this.publisher = channel.peer;
    this.closed = channel.closed;
    this.kept = kept;
    this.#channel = channel;
    this.#next = next;
  }

  /** How many messages were lost to this subscription so far. */
  get missed(): number {
    return this.#missed;
  }

  /**
   * Hands each message that waits now to `handler`, up to `limit`, without an object per message;
   * each is released when its handler returns. Synchronous; 0 when none waits.
   *
   * @throws UkshmError `ERR_UKSHM_BUSY`, `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_CLOSED`; what the
   * handler throws.
   */
  drain(handler: (message: TopicCursor) => void, limit: number = 65536): number {
    if (this.#reader) throw busy(this.topic);
    this.#handler = handler;
    this.#drained = 0;
    this.#channel.drain(this.#hand, limit);
    return this.#drained;
  }

  /**
   * Resolves `true` when messages may wait, `false` when the topic was closed and all was read.
   *
   * @throws UkshmError `ERR_UKSHM_PEER_GONE` when the publisher died, `ERR_UKSHM_TOO_SLOW` when it
   * gave this subscriber up, each behind the last message; `ERR_UKSHM_BUSY`, `ERR_UKSHM_CLOSED`,
   * `ERR_UKSHM_PEER_MISBEHAVED`; the signal's reason.
   */
  readable(options?: WaitOptions): Promise<boolean> {
    if (this.#reader) return Promise.reject(busy(this.topic));
    return this.awaitMore(options);
  }

  /**
   * The messages, until the topic or this is closed; throws as `readable`. Release each. `break`
   * leaves the subscription open. One consumer at a time: `ERR_UKSHM_BUSY`.
   */
  [Symbol.asyncIterator](): AsyncIterator<TopicMessage> {
    return new MergedTopics([this]);
  }

  /** How it went so far. */
  stats(): SubscriptionStats {
    const { heldInline, heldChunks } = this.#channel.stats();
    return { received: this.#received, missed: this.#missed, heldInline, heldChunks };
  }

  /** Ends the subscription: messages that are held are gone with it. Idempotent. */
  close(options?: WaitOptions): Promise<void> {
    return this.#channel.close(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keeps the process alive while the subscription is open (the default). */
  ref(): this {
    this.#channel.ref();
    return this;
  }

  /** Lets the process end while the subscription is open. */
  unref(): this {
    this.#channel.unref();
    return this;
  }

  /** @internal Makes an iterator the one consumer. @throws UkshmError `ERR_UKSHM_BUSY`. */
  claim(): void {
    if (this.#reader) throw busy(this.topic);
    this.#reader = true;
  }

  /** @internal */
  unclaim(): void {
    this.#reader = false;
  }

  /** @internal For the iterator: the next message that is there now. */
  takeNext(): TopicMessage | undefined {
    // What is read may be the publisher's last word, which is no message.
    this.#channel.drain(this.#take, 1);
    const taken = this.#taken;
    this.#taken = undefined;
    return taken;
  }

  /** @internal For the iterator: as `readable`. */
  async awaitMore(options?: WaitOptions): Promise<boolean> {
    if (this.#end !== undefined) throw this.#end;
    return this.#channel.readable(options);
  }

  readonly #hand = (at: MessageCursor): void => {
    const missed = this.#number(at);
    if (missed < 0) return;
    this.#drained++;
    this.#cursor ??= new NumberedCursor(this.topic, at);
    this.#cursor.point(at, missed);
    this.#handler?.(this.#cursor);
  };

  readonly #take = (at: MessageCursor): void => {
    const missed = this.#number(at);
    if (missed >= 0) this.#taken = new NumberedMessage(this.topic, at.take(), missed);
  };

  /** How many were lost before this message; -1: it is none. */
  #number(at: MessageCursor): number {
    if (at.type !== TYPE_DATA || at.isRequest) {
      this.#onLastWord(at);
      return -1;
    }
    const missed = (at.id - this.#next) >>> 0;
    this.#next = (at.id + 1) >>> 0;
    this.#received++;
    this.#missed += missed;
    return missed;
  }

  #onLastWord(at: MessageCursor): void {
    const { type, isRequest } = at;
    if (type !== TYPE_END || isRequest) {
      const what = isRequest ? 'a request' : `a message of type ${type}`;
      throw misbehaves(this.#channel, `${what} in a topic`);
    }
    const note = readNote(this.#channel, at.take());
    const sequence = noteNumber(this.#channel, note, 'sequence');
    this.#missed += (sequence - this.#next) >>> 0;
    this.#next = sequence;
    const error = endError(this.#channel, note);
    if (error?.code !== 'ERR_UKSHM_TOO_SLOW') {
      this.#end = error;
      return;
    }
    this.#end = new UkshmError(
      'ERR_UKSHM_TOO_SLOW',
      `this subscriber of '${this.topic}' was too slow, and its publisher gave it up: release ` +
        "messages sooner, or subscribe with a greater 'depth' or another 'slow'",
    );
  }
}

/**
 * Subscribes to the topic at `name`; resolves when the publisher has admitted this subscriber, so
 * that nothing published from then on is missed without being counted.
 *
 * @throws UkshmError as `connect`, and `ERR_UKSHM_NOT_OFFERED` (another topic has that name, or
 * something else), `ERR_UKSHM_MAY_NOT_BLOCK`.
 */
export async function subscribe(
  name: string,
  options: SubscribeOptions = {},
): Promise<Subscription> {
  const { slow, depth } = checkWishes(options);
  const { channel, answer } = await join(name, { topic: name, slow, depth }, options);
  try {
    const note = readNote(channel, answer);
    const kept = noteNumber(channel, note, 'kept');
    const next = (noteNumber(channel, note, 'sequence') - kept) >>> 0;
    return new Subscription(channel, next, kept);
  } catch (error) {
    await channel.close({ signal: AbortSignal.abort() }).catch(() => {});
    throw error;
  }
}
