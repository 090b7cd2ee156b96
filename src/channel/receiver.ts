// The receiving half of a channel: the peer's outbox, and what of it this side holds.
import { closedError, peerMisbehaved, type UkshmError } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';
import { type OutboxLayout, RELEASE_SLOTS } from '../memory/outbox-layout.js';
import { RecordConsumer, type RecordVisitor } from '../ring/consumer.js';
import { ReleaseWriter } from '../ring/releases.js';
import { nowMs } from '../sys/clock.js';
import { Aside } from './aside.js';
import type { Channel } from './channel.js';
import { ASIDE, Place, TAKEN } from './descriptor.js';
import { drainInDrain, noReply, takenBefore, takenTooLate } from './ends.js';
import { Imports } from './imports.js';
import { type Kind, kindOf, REPLY, REQUEST, TYPE_MAX } from './kinds.js';
import type { Loan } from './loan.js';
import {
  DrainCursor,
  INLINE,
  type Message,
  type MessageCursor,
  type MessageOwner,
  PRIVATE,
  ReceivedMessage,
} from './message.js';
import type { ReplyOptions } from './options.js';
import type { Requests } from './requests.js';

/** Records that are read at once while a reply is awaited. */
const SET_ASIDE_MAX = 65536;

/** What a receiver asks of its channel. */
export interface ReceiverOptions {
  readonly alwaysRing: boolean;
  /** Wakes the peer. */
  readonly ring: () => void;
  /** Carries a message on to another channel (forward.ts). */
  readonly carry: (
    message: ReceivedMessage,
    to: Channel,
    signal: AbortSignal | undefined,
  ) => Promise<void>;
  /** Where replies go, and answers come from. */
  readonly requests: () => Requests;
  /** The last held message of an ended channel was released, and nothing is left to be read. */
  readonly onIdle: () => void;
}

export class Receiver implements RecordVisitor, MessageOwner {
  readonly mapping: Mapping;
  readonly layout: OutboxLayout;
  /** Regions that are mapped here for the peer's sake. */
  readonly imports: Imports = new Imports();
  readonly #consumer: RecordConsumer;
  readonly #releases: ReleaseWriter;
  readonly #options: ReceiverOptions;
  readonly #cursor: DrainCursor;
  #handler: ((message: MessageCursor) => void) | undefined = undefined;
  #draining = false;
  readonly #at: Place = new Place();
  /** The record that was taken last in this drain, by its offset: none comes twice in one. */
  #takenAt = -1;
  readonly #aside: Aside = new Aside();
  #atAside: ReceivedMessage | undefined = undefined;
  /** Replies among the records of a drain. */
  #replies = 0;
  #one: ReceivedMessage | undefined = undefined;
  #leasesHeld = 0;
  #closed = false;
  #ended = false;
  rings = 0;

  constructor(
    words: Int32Array,
    ownLayout: OutboxLayout,
    mapping: Mapping,
    layout: OutboxLayout,
    options: ReceiverOptions,
  ) {
    this.mapping = mapping;
    this.layout = layout;
    this.#options = options;
    this.#consumer = new RecordConsumer(words, mapping.words, layout, options.alwaysRing);
    this.#releases = new ReleaseWriter(words, ownLayout);
    this.#cursor = new DrainCursor(this, mapping.bytes, mapping.longs);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Whether a handler of `drain` runs. */
  get draining(): boolean {
    return this.#draining;
  }

  /** Inline messages that are kept: they hold up the ring behind them. */
  get heldInline(): number {
    return this.#consumer.heldCount;
  }

  get heldChunks(): number {
    return this.#leasesHeld;
  }

  closedError(): UkshmError {
    return closedError('the channel of this message');
  }

  /** Whether a message waits. */
  available(): boolean {
    return this.#aside.count > 0 || this.fresh();
  }

  /** Whether there is anything that nobody has seen. */
  fresh(): boolean {
    if (this.#closed || !this.#consumer.available()) return false;
    return !this.#consumer.atPadding() || this.#behindPadding();
  }

  /** Padding is no message: reads it, and looks behind it. */
  #behindPadding(): boolean {
    if (this.#draining) return false;
    this.#drain(() => {}, 0);
    return this.#consumer.available();
  }

  /** Lets messages that come without pause gather before the next look. */
  gather(): void {
    if (!this.#closed) this.#consumer.gather(nowMs);
  }

  news(): boolean {
    return this.#consumer.news();
  }

  peerClosing(): boolean {
    return this.#consumer.peerClosing();
  }

  /** Nothing is held, and nothing is left to be read. */
  get idle(): boolean {
    return this.#leasesHeld + this.#consumer.heldCount === 0 && !this.available();
  }

  /** From now on it is told when nothing is held any more. */
  end(): void {
    this.#ended = true;
  }

  /** Looks for the last time at what the peer, now gone, has published. */
  freeze(): void {
    try {
      this.#consumer.freeze();
    } catch {
      // The dead one's last tail was a lie: nothing more of it is read.
    }
  }

  spin(micros: number): boolean {
    return this.#consumer.spin(micros, nowMs) && this.available();
  }

  announceSleep(): void {
    this.#consumer.announceSleep();
  }

  awake(): void {
    this.#consumer.awake();
  }

  markClosing(state: number): void {
    this.#consumer.markClosing(state);
  }

  /** Hands each waiting message to `handler`, up to `limit`; those that were set aside first. */
  drain(handler: (message: MessageCursor) => void, limit: number): number {
    const count = this.#aside.count > 0 ? this.#drainAside(handler, limit) : 0;
    return count > 0 && count >= limit ? count : count + this.#drain(handler, limit - count);
  }

  /** Reads all that is fresh: replies go where they are awaited, messages wait for a reader. */
  setAside(): void {
    if (!this.#draining) this.#drain(this.#putAside, SET_ASIDE_MAX);
  }

  readonly #putAside = (): void => this.#aside.push(this.detach());

  #drain(handler: (message: MessageCursor) => void, limit: number): number {
    if (this.#draining) throw drainInDrain();
    this.#draining = true;
    this.#handler = handler;
    this.#takenAt = -1;
    this.#replies = 0;
    try {
      return this.#consumer.drain(this.#cursor, this, limit, nowMs) - this.#replies;
    } finally {
      this.#draining = false;
      this.#handler = undefined;
      this.#at.lease = INLINE;
      this.#settle();
    }
  }

  #drainAside(handler: (message: MessageCursor) => void, limit: number): number {
    if (this.#draining) throw drainInDrain();
    let count = 0;
    this.#draining = true;
    try {
      for (; count < limit && !this.#closed; count++) {
        const message = this.#aside.shift();
        if (message === undefined) break;
        this.#at.lease = ASIDE;
        this.#atAside = message;
        this.#cursor.pointAt(message);
        handler(this.#cursor);
        if (this.#at.lease === ASIDE) message.release();
      }
    } finally {
      this.#draining = false;
      this.#at.lease = INLINE;
      this.#atAside = undefined;
      this.#cursor.reset(this.mapping);
    }
    return count;
  }

  /** The next message, or `undefined`. */
  next(): Message | undefined {
    const aside = this.#aside.shift();
    if (aside !== undefined) return aside;
    this.#handler = undefined;
    this.#consumer.drain(this.#cursor, this, 1, nowMs);
    const message = this.#taken();
    // Padding, replies and descriptors that were read owe nobody anything: the sender may need
    // their room.
    if (message?.lease !== INLINE) this.#settle();
    return message;
  }

  #taken(): ReceivedMessage | undefined {
    const message = this.#one;
    this.#one = undefined;
    return message;
  }

  onInline(): boolean {
    const cursor = this.#cursor;
    if (cursor.type > TYPE_MAX) return this.#onSpecial(kindOf(cursor.type));
    const handler = this.#handler;
    if (handler === undefined) {
      this.#one = this.#keepInline();
      return false;
    }
    handler(cursor);
    return !this.#closed;
  }

  /** An inline request, reply or failure. */
  #onSpecial(kind: Kind): boolean {
    const cursor = this.#cursor;
    cursor.type &= TYPE_MAX;
    if (kind >= REPLY) {
      this.#replies++;
      const reply = new ReceivedMessage(this, cursor, PRIVATE, 0, 0, cursor.copy());
      this.#options.requests().onReply(reply, kind);
      return !this.#closed;
    }
    cursor.isRequest = true;
    const { id } = cursor;
    try {
      if (this.#handler === undefined) this.#one = this.#keepInline();
      else this.#handler(cursor);
    } finally {
      cursor.isRequest = false;
      const dropped = this.#takenAt !== cursor.offset && this.#handler !== undefined;
      if (dropped) this.refuse(id, noReply());
    }
    return !this.#closed && this.#handler !== undefined;
  }

  onDescriptor(at: number, id: number): boolean {
    if (this.#leasesHeld >= RELEASE_SLOTS) {
      throw peerMisbehaved(`more than ${RELEASE_SLOTS} chunks lent at a time`);
    }
    const cursor = this.#cursor;
    const kind = this.#at.readDescriptor(at, id, this, cursor);
    const { lease, generation, region } = this.#at;
    this.#leasesHeld++;
    if (region !== 0) this.imports.hold(region);
    try {
      if (kind >= REPLY) this.#onReply(kind);
      else if (this.#handler === undefined) this.#one = this.take();
      else this.#handler(cursor);
    } finally {
      if (this.#at.lease !== TAKEN) {
        this.#releaseLease(lease, generation, region);
        if (kind === REQUEST) this.refuse(id, noReply());
      }
      cursor.reset(this.mapping);
      this.#at.lease = INLINE;
    }
    return !this.#closed && this.#handler !== undefined;
  }

  #onReply(kind: Kind): void {
    this.#replies++;
    this.#options.requests().onReply(this.take(), kind);
  }

  /** Keeps the message that a drain is at. */
  take(): ReceivedMessage {
    const lease = this.#at.lease;
    if (lease === TAKEN) throw takenBefore();
    if (lease === INLINE) {
      this.#takeInline();
      return this.#keepInline();
    }
    this.#at.lease = TAKEN;
    if (lease === ASIDE) return this.#atAside as ReceivedMessage;
    return new ReceivedMessage(this, this.#cursor, lease, this.#at.generation, this.#at.region);
  }

  /** As `take`, but without holding up the ring. */
  detach(): ReceivedMessage {
    if (this.#at.lease !== INLINE) return this.take();
    this.#takeInline();
    return new ReceivedMessage(this, this.#cursor, PRIVATE, 0, 0, this.#cursor.copy());
  }

  #takeInline(): void {
    const { offset } = this.#cursor;
    if (!this.#draining) throw takenTooLate();
    if (this.#takenAt === offset) throw takenBefore();
    this.#takenAt = offset;
  }

  answer(
    request: ReceivedMessage,
    body: Uint8Array | Loan,
    options: ReplyOptions | undefined,
  ): Promise<void> {
    return this.#options.requests().answer(request, body, options);
  }

  refuse(id: number, error: unknown): void {
    this.#options.requests().refuse(id, error);
  }

  release(message: ReceivedMessage): void {
    if (this.#closed || message.lease === PRIVATE) return;
    if (message.lease !== INLINE) {
      this.#releaseLease(message.lease, message.generation, message.region);
    } else {
      this.#consumer.release(message);
      if (this.#draining) return;
    }
    this.#settle();
  }

  #releaseLease(lease: number, generation: number, region: number): void {
    if (this.#closed) return;
    this.#leasesHeld--;
    if (region !== 0) this.imports.release(region);
    this.#releases.push(lease, generation);
    this.#releases.publish();
    this.#maybeRing();
  }

  /** Publishes the head, wakes a sender that waits for space, tells an ended channel. */
  #settle(): void {
    if (this.#closed) return;
    if (this.#consumer.publishHead()) this.#maybeRing();
    if (this.#ended && this.idle) this.#options.onIdle();
  }

  async forward(
    message: ReceivedMessage,
    to: Channel,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    await this.#options.carry(message, to, signal);
  }

  close(): void {
    this.#closed = true;
    this.imports.close();
    this.mapping.close();
  }

  #keepInline(): ReceivedMessage {
    const message = new ReceivedMessage(this, this.#cursor, INLINE, 0, 0);
    if (!this.#consumer.hold(message, this.#cursor.offset)) throw takenBefore();
    return message;
  }

  #maybeRing(): void {
    if (!this.#consumer.mustRing()) return;
    this.rings++;
    this.#options.ring();
  }
}
