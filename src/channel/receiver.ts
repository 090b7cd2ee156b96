// The receiving half of a channel: the peer's outbox, and what of it this side holds.
import { closedError, peerMisbehaved, UkshmError } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';
import { type OutboxLayout, RELEASE_SLOTS, TYPE_MAX } from '../memory/outbox-layout.js';
import { RecordConsumer, type RecordVisitor } from '../ring/consumer.js';
import { ReleaseWriter } from '../ring/releases.js';
import { nowMs } from '../sys/clock.js';
import type { Channel } from './channel.js';
import {
  DrainCursor,
  INLINE,
  type Message,
  type MessageCursor,
  type MessageOwner,
  ReceivedMessage,
} from './message.js';

/** In place of a lease number: the chunk that a drain is at is a message of its own by now. */
const TAKEN = -2;

function takenBefore(): UkshmError {
  return new UkshmError('ERR_UKSHM_MESSAGE_RELEASED', 'the message was taken before: take() once');
}

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
  /** The last held message of an ended channel was released, and nothing is left to be read. */
  readonly onIdle: () => void;
}

/** A region that the peer forwards from, mapped here. */
interface Imported {
  readonly mapping: Mapping;
  /** Messages of it that this side holds. */
  held: number;
  dropped: boolean;
}

export class Receiver implements RecordVisitor, MessageOwner {
  readonly mapping: Mapping;
  /** By the peer's numbers. */
  readonly #imports: Map<number, Imported> = new Map();
  readonly layout: OutboxLayout;
  readonly #consumer: RecordConsumer;
  readonly #releases: ReleaseWriter;
  readonly #options: ReceiverOptions;
  readonly #cursor: DrainCursor;
  #handler: ((message: MessageCursor) => void) | undefined = undefined;
  #draining = false;
  // The descriptor that a drain is at; `#atLease` is INLINE at a record, TAKEN once it is taken.
  #atLease = INLINE;
  #atGeneration = 0;
  #atRegion = 0;
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
    if (this.#closed || !this.#consumer.available()) return false;
    return !this.#consumer.atPadding() || this.#behindPadding();
  }

  /** Padding is no message: reads it, and looks behind it. */
  #behindPadding(): boolean {
    if (this.#draining) return false;
    this.drain(() => {}, 0);
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

  /** Hands each waiting message to `handler`, up to `limit`. */
  drain(handler: (message: MessageCursor) => void, limit: number): number {
    if (this.#draining) {
      throw new UkshmError('ERR_UKSHM_BUSY', 'drain was called inside the handler of a drain');
    }
    this.#draining = true;
    this.#handler = handler;
    try {
      return this.#consumer.drain(this.#cursor, this, limit, nowMs);
    } finally {
      this.#draining = false;
      this.#handler = undefined;
      this.#settle();
    }
  }

  /** The next message, or `undefined`. */
  next(): Message | undefined {
    this.#handler = undefined;
    this.#consumer.drain(this.#cursor, this, 1, nowMs);
    const message = this.#taken();
    // Padding and descriptors that were read owe nobody anything: the sender may need their room.
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
    const handler = this.#handler;
    if (handler === undefined) {
      this.#one = this.#keepInline();
      return false;
    }
    handler(cursor);
    return !this.#closed;
  }

  onDescriptor(at: number, id: number): boolean {
    this.#point(at, id);
    const lease = this.#atLease;
    const region = this.#atRegion;
    this.#leasesHeld++;
    if (region !== 0) (this.#imports.get(region) as Imported).held++;
    try {
      if (this.#handler === undefined) this.#one = this.take();
      else this.#handler(this.#cursor);
    } finally {
      this.#cursor.memory = this.mapping.bytes;
      this.#cursor.longs = this.mapping.longs;
      if (this.#atLease !== TAKEN) this.#releaseLease(lease, this.#atGeneration, region);
      this.#atLease = INLINE;
    }
    return !this.#closed && this.#handler !== undefined;
  }

  /** Keeps the message that a drain is at. */
  take(): ReceivedMessage {
    const lease = this.#atLease;
    if (lease === INLINE && this.#draining) return this.#keepInline();
    if (lease === INLINE) {
      throw new UkshmError(
        'ERR_UKSHM_MESSAGE_RELEASED',
        'a cursor is valid only inside the handler of its drain: take() the message there',
      );
    }
    if (lease === TAKEN) throw takenBefore();
    this.#atLease = TAKEN;
    return new ReceivedMessage(this, this.#cursor, lease, this.#atGeneration, this.#atRegion);
  }

  release(message: ReceivedMessage): void {
    if (this.#closed) return;
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
    if (region !== 0) this.#releaseImported(region);
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

  /** Regions that are mapped here for the peer's sake. */
  get importCount(): number {
    return this.#imports.size;
  }

  /** From now on the peer's messages may lie in this region. */
  addImport(region: number, mapping: Mapping): void {
    this.#imports.set(region, { mapping, held: 0, dropped: false });
  }

  hasImport(region: number): boolean {
    return this.#imports.has(region);
  }

  /** No more messages of this region come: unmap it behind the last one that is held. */
  dropImport(region: number): void {
    const imported = this.#imports.get(region);
    if (imported === undefined) return;
    imported.dropped = true;
    if (imported.held === 0) this.#unmap(region, imported);
  }

  #releaseImported(region: number): void {
    const imported = this.#imports.get(region);
    if (imported === undefined) return;
    imported.held--;
    if (imported.dropped && imported.held === 0) this.#unmap(region, imported);
  }

  #unmap(region: number, imported: Imported): void {
    this.#imports.delete(region);
    imported.mapping.close();
  }

  close(): void {
    this.#closed = true;
    for (const { mapping } of this.#imports.values()) mapping.close();
    this.#imports.clear();
    this.mapping.close();
  }

  #keepInline(): ReceivedMessage {
    const message = new ReceivedMessage(this, this.#cursor, INLINE, 0, 0);
    if (!this.#consumer.hold(message, this.#cursor.offset)) throw takenBefore();
    return message;
  }

  /** Reads a descriptor once, checks it, and points the cursor at what it describes. */
  #point(at: number, id: number): void {
    const words = this.mapping.words;
    const index = at >> 2;
    const offset = (words[index] as number) >>> 0;
    const lengthBytes = (words[index + 1] as number) >>> 0;
    const lease = (words[index + 2] as number) >>> 0;
    const generation = (words[index + 3] as number) >>> 0;
    const region = (words[index + 4] as number) >>> 0;
    const type = (words[index + 5] as number) >>> 0;
    let { bytes: memory, longs } = this.mapping;
    let start = this.layout.arenaOffset;
    if (region !== 0) {
      const imported = this.#imports.get(region);
      if (imported === undefined || imported.dropped) {
        throw peerMisbehaved(`a message in region ${region}, which is not imported`);
      }
      memory = imported.mapping.bytes;
      longs = imported.mapping.longs;
      start = 0;
    }
    if (offset < start || offset + lengthBytes > memory.length || lease >= RELEASE_SLOTS) {
      throw peerMisbehaved(
        `a message at ${offset}, ${lengthBytes} bytes long, lease ${lease}, outside its region`,
      );
    }
    if (type > TYPE_MAX) throw peerMisbehaved(`a message of type ${type}`);
    if (this.#leasesHeld >= RELEASE_SLOTS) {
      throw peerMisbehaved(`more than ${RELEASE_SLOTS} chunks lent at a time`);
    }
    const cursor = this.#cursor;
    cursor.memory = memory;
    cursor.longs = longs;
    cursor.offset = offset;
    cursor.lengthBytes = lengthBytes;
    cursor.type = type;
    cursor.id = id;
    this.#atLease = lease;
    this.#atGeneration = generation;
    this.#atRegion = region;
  }

  #maybeRing(): void {
    if (!this.#consumer.mustRing()) return;
    this.rings++;
    this.#options.ring();
  }
}
