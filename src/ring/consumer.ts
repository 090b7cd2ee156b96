// The consuming end of a record ring: reads the peer's outbox, writes its own head.
//
// What the peer wrote is input: the tail is read once and checked against private cursors; each
// record header is read once, and the record must end within its ring and before the tail.
import { peerMisbehaved } from '../core/errors.js';
import {
  ASLEEP_FOR_RECORDS_INDEX,
  ASLEEP_FOR_SPACE_INDEX,
  DESCRIPTOR_BYTES,
  HEAD_INDEX,
  type OutboxLayout,
  RECORD_ALIGN_BYTES,
  RECORD_HEADER_BYTES,
  RING_OFFSET,
  STATE_INDEX,
  TAIL_INDEX,
  TYPE_DESCRIPTOR,
  TYPE_PADDING,
} from '../memory/outbox-layout.js';
import { Pause } from './pause.js';
import { loadAfterStore } from './words.js';

/** A run of records below this was short: more of them shall gather before the next. */
const SHORT_RUN = 64;
/** Looks of a spin between two questions for the time. */
const LOOKS_PER_CLOCK = 64;

/** Where the record lies that a drain is at: one object, re-pointed. */
export class RecordCursor {
  memory: Uint8Array;
  /** The same memory as 64-bit words. */
  longs: BigInt64Array;
  offset = 0;
  lengthBytes = 0;
  type = 0;
  id = 0;
  constructor(memory: Uint8Array, longs: BigInt64Array) {
    this.memory = memory;
    this.longs = longs;
  }
}

/** A record whose release is still to come: a link of a list in ring order. */
export class HeldRecord {
  start = 0;
  released = false;
  next: HeldRecord | undefined = undefined;
}

/** What a drain does with each record. */
export interface RecordVisitor {
  /** An inline record; the cursor is at it. `false` stops the drain behind this record. */
  onInline(): boolean;
  /** A descriptor: its body starts at `offset`. `false` stops the drain behind this record. */
  onDescriptor(offset: number, id: number): boolean;
}

export class RecordConsumer {
  readonly #words: Int32Array;
  readonly #peerWords: Int32Array;
  readonly #capacity: number;
  readonly #alwaysRing: boolean;
  readonly #pause: Pause = new Pause();
  #position: number;
  #tailSeen: number;
  #headPublished: number;
  #oldest: HeldRecord | undefined = undefined;
  #newest: HeldRecord | undefined = undefined;
  #heldCount = 0;
  /** Records read since none was left. */
  #run = 0;
  /** This side's own tail when it last received something. */
  #sentBefore = 0;
  #asleep = 0;
  #rungFor = 0;
  #frozen = false;
  /** A drain moved the head by itself: the next `publishHead` must still answer so. */
  #ringOwed = false;

  /**
   * @param words - this side's outbox, writable.
   * @param peerWords - the other side's outbox, in which the ring lies.
   * @param alwaysRing - the peer cannot fence its sleep word: ring at every release.
   * @param start - where the cursors begin: 0 in a fresh outbox; tests begin just below 2^32.
   */
  constructor(
    words: Int32Array,
    peerWords: Int32Array,
    layout: OutboxLayout,
    alwaysRing: boolean,
    start: number = 0,
  ) {
    this.#words = words;
    this.#peerWords = peerWords;
    this.#capacity = layout.ringBytes;
    this.#alwaysRing = alwaysRing;
    this.#position = this.#tailSeen = this.#headPublished = start | 0;
  }

  get heldCount(): number {
    return this.#heldCount;
  }

  /** Whether records wait. Reads the peer's tail only when none is known of. */
  available(): boolean {
    return this.#position !== this.#tailSeen || this.#readTail();
  }

  /** Whether nothing but padding waits next. */
  atPadding(): boolean {
    if (this.#position === this.#tailSeen) return false;
    const at = this.#position & (this.#capacity - 1);
    return (this.#peerWords[(RING_OFFSET + at) >> 2] as number) >>> 16 === TYPE_PADDING;
  }

  /** Looks again; whether the peer has published anything since the last look. */
  news(): boolean {
    const before = this.#tailSeen;
    this.#readTail();
    return this.#tailSeen !== before;
  }

  /** Looks for the last time: what the peer publishes after this is refused. */
  freeze(): void {
    try {
      this.#readTail();
    } finally {
      this.#frozen = true;
    }
  }

  /** Whether the peer said that it publishes nothing more. Read this, then the tail once more. */
  peerClosing(): boolean {
    // ACQUIRE state, pairs with `markClosing`: its last tail comes before it.
    return Atomics.load(this.#peerWords, STATE_INDEX) !== 0;
  }

  /** Polls for up to `micros`, with a pause before each look. `true` as soon as records wait. */
  spin(micros: number, nowMs: () => number): boolean {
    this.gather(nowMs);
    if (this.available()) return true;
    // Asking for the time takes as long as an answer: only after the first looks.
    if (this.#look(nowMs)) return true;
    const deadline = nowMs() + micros / 1000;
    do {
      if (this.#look(nowMs)) return true;
    } while (nowMs() < deadline);
    return false;
  }

  #look(nowMs: () => number): boolean {
    const answer = this.#awaitsAnswer();
    for (let i = 0; i < LOOKS_PER_CLOCK; i++) {
      this.#pause.wait(answer, nowMs);
      if (this.#readTail()) return true;
    }
    return false;
  }

  /**
   * Visits up to `limit` records that wait now, then publishes the head.
   *
   * @returns the number of records visited, padding not counted.
   * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`; what the visitor throws, with its record counted
   * as read.
   */
  drain(cursor: RecordCursor, visitor: RecordVisitor, limit: number, nowMs: () => number): number {
    if (this.#position === this.#tailSeen) {
      if (!this.gather(nowMs)) this.#pause.wait(this.#awaitsAnswer(), nowMs);
      if (!this.#readTail()) return 0;
    }
    let count = 0;
    const words = this.#peerWords;
    const capacity = this.#capacity;
    const mask = capacity - 1;
    const quarter = capacity >> 2;
    let position = this.#position;
    const tail = this.#tailSeen;
    while (position !== tail && (count < limit || this.atPadding())) {
      const at = position & mask;
      const index = (RING_OFFSET + at) >> 2;
      const header = words[index] as number;
      const type = header >>> 16;
      const length = header & 0xffff;
      const rest = Math.min((tail - position) >>> 0, capacity - at);
      const size = type === TYPE_PADDING ? length << 3 : RECORD_HEADER_BYTES + ((length + 7) & ~7);
      if (size > rest || size === 0 || (type === TYPE_DESCRIPTOR && length !== DESCRIPTOR_BYTES)) {
        throw this.#badRecord(position, type, length, rest);
      }
      position = (position + size) | 0;
      this.#position = position;
      if (type === TYPE_PADDING) continue;
      count++;
      let goOn: boolean;
      if (type === TYPE_DESCRIPTOR) {
        const id = words[index + 1] as number;
        goOn = visitor.onDescriptor(RING_OFFSET + at + RECORD_HEADER_BYTES, id >>> 0);
      } else {
        cursor.offset = RING_OFFSET + at + RECORD_HEADER_BYTES;
        cursor.lengthBytes = length;
        cursor.type = type;
        cursor.id = (words[index + 1] as number) >>> 0;
        goOn = visitor.onInline();
      }
      if (!goOn) break;
      if ((position - this.#headPublished) >>> 0 >= quarter) this.#ringOwed = this.publishHead();
    }
    this.#run += count;
    this.#sentBefore = this.#words[TAIL_INDEX] as number;
    return count;
  }

  /**
   * Keeps the record that a drain is at, as `held`; its payload is at `payloadOffset`.
   * @returns `false` when it is kept already.
   */
  hold(held: HeldRecord, payloadOffset: number): boolean {
    // The record's cursor: the same ring position, behind `#position` by less than the capacity.
    const at = payloadOffset - RECORD_HEADER_BYTES - RING_OFFSET;
    const back = (this.#position - at) & (this.#capacity - 1);
    held.start = (this.#position - (back === 0 ? this.#capacity : back)) | 0;
    if (this.#newest?.start === held.start) return false;
    if (this.#newest === undefined) this.#oldest = held;
    else this.#newest.next = held;
    this.#newest = held;
    this.#heldCount++;
    return true;
  }

  /** Releases a held record; the head advances over the released prefix when published. */
  release(held: HeldRecord): void {
    held.released = true;
    this.#heldCount--;
    let oldest = this.#oldest;
    while (oldest?.released) oldest = oldest.next;
    this.#oldest = oldest;
    if (oldest === undefined) this.#newest = undefined;
  }

  /** Lets the peer reuse what is released. @returns whether it may have to be rung: `mustRing`. */
  publishHead(): boolean {
    const ringOwed = this.#ringOwed;
    this.#ringOwed = false;
    const head = this.#oldest === undefined ? this.#position : this.#oldest.start;
    if (head === this.#headPublished) return ringOwed;
    this.#headPublished = head;
    // RELEASE head, pairs with ACQUIRE head in RecordProducer: our reads come before it.
    // SEQ_CST against the sleep word.
    Atomics.store(this.#words, HEAD_INDEX, head);
    return true;
  }

  /** Whether the peer sleeps for space and was not rung for it. Ask after a release. */
  mustRing(): boolean {
    // SEQ_CST sleep word, pairs with the announcement in RecordProducer.
    const asleep = loadAfterStore(this.#peerWords, ASLEEP_FOR_SPACE_INDEX);
    if (this.#alwaysRing) return true;
    if ((asleep & 1) === 0 || asleep === this.#rungFor) return false;
    this.#rungFor = asleep;
    return true;
  }

  /** Announces that this side sleeps for records; then look once more, then sleep. */
  announceSleep(): void {
    this.#asleep = (this.#asleep + 1) | 1;
    // SEQ_CST, pairs with the producer's read after its tail.
    Atomics.store(this.#words, ASLEEP_FOR_RECORDS_INDEX, this.#asleep);
  }

  /** Takes the announcement back. */
  awake(): void {
    if ((this.#asleep & 1) === 0) return;
    this.#asleep = (this.#asleep + 1) | 0;
    Atomics.store(this.#words, ASLEEP_FOR_RECORDS_INDEX, this.#asleep);
  }

  /** Says that this side publishes and reads nothing more. */
  markClosing(state: number): void {
    // RELEASE state: the last tail comes before it.
    Atomics.store(this.#words, STATE_INDEX, state);
  }

  /**
   * Before the first look after a short run of records that nobody here answers: pauses, so that
   * more may gather. @returns whether it paused.
   */
  gather(nowMs: () => number): boolean {
    const run = this.#run;
    if (run === 0 || this.#position !== this.#tailSeen) return false;
    this.#run = 0;
    if (run >= SHORT_RUN || this.#awaitsAnswer()) return false;
    this.#pause.gather(nowMs);
    return true;
  }

  /** Whether this side has sent something since it last received something. */
  #awaitsAnswer(): boolean {
    return this.#words[TAIL_INDEX] !== this.#sentBefore;
  }

  #readTail(): boolean {
    if (this.#frozen) return this.#position !== this.#tailSeen;
    // ACQUIRE tail, pairs with RELEASE tail in RecordProducer: the records before it are whole.
    const tail = Atomics.load(this.#peerWords, TAIL_INDEX);
    if (tail === this.#tailSeen) return this.#position !== tail;
    const fresh = (tail - this.#tailSeen) >>> 0;
    const used = (this.#tailSeen - this.#headPublished) >>> 0;
    if (fresh > this.#capacity - used || (tail & (RECORD_ALIGN_BYTES - 1)) !== 0) {
      throw peerMisbehaved(
        `its tail ${tail >>> 0} is not between ${this.#tailSeen >>> 0} and one ring of ` +
          `${this.#capacity} bytes after ${this.#headPublished >>> 0} in steps of 8`,
      );
    }
    this.#tailSeen = tail;
    return true;
  }

  #badRecord(position: number, type: number, length: number, rest: number): Error {
    return peerMisbehaved(
      `the record at ${position >>> 0} (type ${type}, length ${length}) does not end within the ` +
        `${rest} bytes before the tail or the ring's end`,
    );
  }
}
