// One subscriber, as its publisher sees it: what it was sent, what it has released, what waits.
//
//     active → leaving (too slow: it may still drain) → gone (its channel has ended)
//     active → gone
//     prohibited: leaving → active; anything sent to one that is leaving
//
// A small message is a record in the subscriber's ring; a larger one a descriptor that points into
// the topic's memory. Either counts until it is released. `depth` bounds their number, and a share of
// what is free bounds the bytes: however many subscribers stop, each takes a part of what the ones
// before it have left (the dynamic thresholds of switches with a shared memory).
import type { Channel } from '../../channel/channel.js';
import type { Exported, ForwardTarget } from '../../channel/forward.js';
import type { Lent } from '../../channel/leases.js';
import type { Sender } from '../../channel/sender.js';
import { ceilLog2 } from '../../core/u32.js';
import { RECORD_HEADER_BYTES } from '../../memory/outbox-layout.js';
import { encodeNote, endIfLie, type Note, TYPE_DATA, TYPE_END, TYPE_JOIN } from '../joining.js';
import type { Wishes } from './options.js';
import { type Parcel, Queue } from './queue.js';
import type { TopicChunk, TopicRegion } from './region.js';

/** Of what is free: how much one subscriber may hold. */
const SHARE = 0.25;
/** Large messages that a subscriber may hold in any case: one that it reads, one that comes. */
const LENT_MIN = 2;
/** Room in the ring that is kept for the last message, which says why there are no more. */
const RESERVED_BYTES = 192;
const DESCRIPTOR_RECORD_BYTES = 64;

/** A region as this subscriber has it mapped, or is about to. */
interface Berth {
  readonly region: TopicRegion;
  readonly exported: Exported;
  /** Of what the subscriber holds. */
  bytes: number;
}

interface Holding extends Lent {
  chunk: TopicChunk | undefined;
  berth: Berth | undefined;
}

/** What an outlet tells its topic. */
export interface OutletEvents {
  /** Something may have come back. */
  readonly onReleased: () => void;
  /** The subscriber sleeps, and must be rung: `ring`. */
  readonly onSleeper: (outlet: Outlet) => void;
}

export class Outlet {
  readonly channel: Channel;
  readonly wishes: Wishes;
  /** Messages that went out, and that were lost to this subscriber. */
  sent = 0;
  dropped = 0;
  /** Counts what came back; and what it was when the topic's memory was last exhausted. */
  released = 0;
  releasedAtStall = 0;
  readonly #target: ForwardTarget;
  readonly #sender: Sender;
  readonly #ringBytes: number;
  readonly #events: OutletEvents;
  /** Where in the ring each small message ends that was not released. */
  readonly #ends: Int32Array;
  #firstEnd = 0;
  #endCount = 0;
  readonly #berths: Map<TopicRegion, Berth> = new Map();
  #berth: Berth | undefined = undefined;
  readonly #idle: Holding[] = [];
  readonly #queue: Queue;
  readonly #patience: AbortController = new AbortController();
  #watching = false;
  #wanted = false;
  #releasedBefore = 0;
  #owesRing = false;
  #left = false;
  #gone = false;

  constructor(channel: Channel, wishes: Wishes, events: OutletEvents) {
    this.channel = channel;
    this.wishes = wishes;
    this.#events = events;
    this.#target = channel.target;
    this.#sender = this.#target.sender;
    this.#ringBytes = this.#sender.layout.ringBytes;
    this.#ends = new Int32Array(2 ** ceilLog2(wishes.depth));
    this.#queue = new Queue(wishes.depth);
  }

  /** Messages that it has not released. */
  get outstanding(): number {
    return this.#sender.lentCount + this.#endCount;
  }

  get queued(): number {
    return this.#queue.count;
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Bytes of `region` that it holds. */
  heldOf(region: TopicRegion): number {
    return this.#berths.get(region)?.bytes ?? 0;
  }

  /** Has the subscriber map a region; larger messages lie there from now on. Resolves then. */
  async enter(region: TopicRegion): Promise<void> {
    const exported = this.#target.importer.handOut(region.shared.origin);
    this.#berth = { region, exported, bytes: 0 };
    this.#berths.set(region, this.#berth);
    await exported.ready;
  }

  /** Nothing of a region is held any more: the subscriber may unmap it. */
  forget(region: TopicRegion): void {
    const berth = this.#berths.get(region);
    this.#berths.delete(region);
    if (berth !== undefined && !this.#gone) this.#target.importer.cameBack(berth.exported);
  }

  /** Sends the answer to its request. `false`: it cannot be sent, the channel is ending. */
  answer(note: Note): boolean {
    return this.#attempt(() => this.#sender.trySend(encodeNote(note), TYPE_JOIN, 0, true));
  }

  /** Whether it can take a message now: in `chunk`, or as a record of `lengthBytes`. */
  hasRoom(lengthBytes: number, chunk: TopicChunk | undefined): boolean {
    try {
      if (this.#queue.count > 0 && !this.#flush()) return false;
      return this.#findsRoom(lengthBytes, chunk);
    } catch (error) {
      return this.#fails(error);
    }
  }

  /** Sends a copy of `bytes`. `false`: no room, see `late`. */
  send(bytes: Uint8Array, sequence: number): boolean {
    try {
      if (this.#queue.count > 0 && !this.#flush()) return false;
      return this.#send(bytes, sequence);
    } catch (error) {
      return this.#fails(error);
    }
  }

  /** Lends it the message in `chunk`. `false`: no room, see `late`. */
  lend(chunk: TopicChunk, sequence: number): boolean {
    try {
      if (this.#queue.count > 0 && !this.#flush()) return false;
      return this.#lend(chunk, sequence);
    } catch (error) {
      return this.#fails(error);
    }
  }

  /** Sends or lends what was kept, or has it wait. */
  offer(parcel: Parcel): void {
    const { bytes, chunk, sequence } = parcel;
    const sent = chunk === undefined ? this.send(bytes, sequence) : this.lend(chunk, sequence);
    if (!sent) this.late(parcel);
  }

  /** There is no room for a message: it waits here, or pushes another one out. */
  late(parcel: Parcel): void {
    if (this.#gone) return;
    const { chunk } = parcel;
    const allowance = chunk === undefined ? 0 : chunk.region.freeBytes * SHARE;
    this.dropped += this.#queue.push(parcel, allowance);
    this.watch();
  }

  /** Somebody waits until the subscriber releases something, or this does. */
  watch(): void {
    this.#wanted = true;
    this.#releasedBefore = this.released;
    if (this.#watching || this.#left || this.#gone) return;
    this.#watching = true;
    this.#attempt(() => {
      const { space } = this.#target;
      space.whenReleased(this.#attend).catch(() => {
        this.#watching = false;
      });
      return true;
    });
  }

  /** There may be room for what waits, though the subscriber has released nothing. */
  resume(): void {
    this.#attempt(() => this.#flush());
  }

  /** Wakes the subscriber: after `onSleeper`. */
  ring(): void {
    this.#owesRing = false;
    if (!this.#gone) this.#sender.ring();
  }

  /** Reads what came back. @returns whether anything did. */
  refresh(): boolean {
    return this.#attempt(() => this.#refresh());
  }

  /** Sends what waits, then leaves. */
  async finish(note: Note): Promise<void> {
    const { signal } = this.#patience;
    try {
      const flushed = (): true | undefined => this.#flush() || undefined;
      await this.#target.space.when(() => this.#target.guard(flushed), signal);
    } catch {
      // Out of patience, or out of a subscriber.
    }
    await this.leave(note);
  }

  /** Says why there is no more, waits until all is read and released, and closes. */
  async leave(note: Note): Promise<void> {
    if (this.#left || this.#gone) return;
    this.#left = true;
    this.dropped += this.#queue.clear();
    this.#attempt(() => this.#sender.trySend(encodeNote(note), TYPE_END, 0, true));
    await this.channel.close({ signal: this.#patience.signal }).catch(() => {});
  }

  /** One that leaves is waited for no more. */
  cut(): void {
    this.#patience.abort();
  }

  /** Its channel has ended: what it was lent is back. */
  end(): void {
    this.#gone = true;
    this.dropped += this.#queue.clear();
    this.#berths.clear();
  }

  #send(bytes: Uint8Array, sequence: number): boolean {
    if (!this.#findsRoom(bytes.length, undefined)) return false;
    if (!this.#sender.trySend(bytes, TYPE_DATA, sequence, false)) return false;
    const mask = this.#ends.length - 1;
    this.#ends[(this.#firstEnd + this.#endCount) & mask] = this.#sender.ringTail;
    this.#endCount++;
    this.#publish();
    return true;
  }

  #lend(chunk: TopicChunk, sequence: number): boolean {
    if (!this.#findsRoom(0, chunk)) return false;
    const berth = this.#berthOf(chunk.region) as Berth;
    const holding = this.#idle.pop() ?? this.#newHolding();
    holding.chunk = chunk;
    holding.berth = berth;
    const { offset, lengthBytes } = chunk;
    const { region } = berth.exported;
    if (!this.#sender.tryLend(holding, region, offset, lengthBytes, TYPE_DATA, sequence)) {
      this.#idle.push(holding);
      return false;
    }
    chunk.hold();
    berth.bytes += chunk.occupiedBytes;
    this.#publish();
    return true;
  }

  #publish(): void {
    this.sent++;
    if (!this.#sender.publishQuietly() || this.#owesRing) return;
    this.#owesRing = true;
    this.#events.onSleeper(this);
  }

  /** One object for each message that is out at a time. */
  #newHolding(): Holding {
    const holding: Holding = {
      chunk: undefined,
      berth: undefined,
      comeBack: () => {
        const { chunk, berth } = holding;
        if (chunk === undefined || berth === undefined) return;
        holding.chunk = holding.berth = undefined;
        this.#idle.push(holding);
        berth.bytes -= chunk.occupiedBytes;
        this.released++;
        chunk.drop();
      },
    };
    return holding;
  }

  #findsRoom(lengthBytes: number, chunk: TopicChunk | undefined): boolean {
    if (this.#mayTake(lengthBytes, chunk)) return true;
    return this.#refresh() && this.#mayTake(lengthBytes, chunk);
  }

  #mayTake(lengthBytes: number, chunk: TopicChunk | undefined): boolean {
    const lent = this.#sender.lentCount;
    if (lent + this.#endCount >= this.wishes.depth) return false;
    const free = this.#ringBytes - this.#sender.ringBytesUsed - RESERVED_BYTES;
    // A record that does not fit before the ring's end takes up to its own length of padding.
    if (chunk === undefined) return free >= 2 * (lengthBytes + RECORD_HEADER_BYTES);
    if (free < DESCRIPTOR_RECORD_BYTES) return false;
    const berth = this.#berthOf(chunk.region);
    if (berth === undefined || !berth.exported.mapped) return false;
    return lent < LENT_MIN || berth.bytes + chunk.occupiedBytes <= chunk.region.freeBytes * SHARE;
  }

  #berthOf(region: TopicRegion): Berth | undefined {
    return this.#berth?.region === region ? this.#berth : this.#berths.get(region);
  }

  #refresh(): boolean {
    const before = this.released;
    this.#sender.drained();
    const head = (this.#sender.ringTail - this.#sender.ringBytesUsed) | 0;
    const mask = this.#ends.length - 1;
    while (this.#endCount > 0 && (((this.#ends[this.#firstEnd] as number) - head) | 0) <= 0) {
      this.#firstEnd = (this.#firstEnd + 1) & mask;
      this.#endCount--;
      this.released++;
    }
    return this.released !== before;
  }

  /** Sends what waits, in order, as far as there is room. @returns whether nothing waits any more. */
  #flush(): boolean {
    for (let parcel = this.#queue.first; parcel !== undefined; parcel = this.#queue.first) {
      const { bytes, chunk, sequence } = parcel;
      const sent = chunk !== undefined ? this.#lend(chunk, sequence) : this.#send(bytes, sequence);
      if (!sent) return false;
      this.#queue.shift();
    }
    return true;
  }

  readonly #attend = (): true | undefined => {
    this.#attempt(() => this.#refresh());
    this.#attempt(() => this.#flush());
    if (this.released !== this.#releasedBefore) {
      // Whoever needs more than that calls `watch` again, from in here.
      this.#wanted = false;
      this.#releasedBefore = this.released;
      this.#events.onReleased();
    }
    const matters = this.#queue.count > 0 || this.#wanted;
    if (matters && !this.#left && !this.#gone) return undefined;
    this.#watching = false;
    return true;
  };

  #attempt(action: () => boolean): boolean {
    try {
      return action();
    } catch (error) {
      return this.#fails(error);
    }
  }

  /** A subscriber that is gone holds nobody up; one that misbehaves has its channel ended. */
  #fails(error: unknown): true {
    endIfLie(this.#target, error);
    return true;
  }
}
