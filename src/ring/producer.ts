// The producing end of a record ring, in the producer's own outbox.
//
//     record:  | u16 length | u16 type | u32 id | payload, padded to 8 bytes |
//     padding: | u16 units of 8 bytes, header included | 0xffff | anything |
//
// Cursors are bytes, free-running over u32. Everything that is relied on (`#tail`, `#headSeen`) is
// private; of the peer's words only the head and its sleep word are read, once each, and checked.
import { peerMisbehaved } from '../core/errors.js';
import { copyLongs, LongView } from '../memory/long-view.js';
import {
  ASLEEP_FOR_RECORDS_INDEX,
  ASLEEP_FOR_SPACE_INDEX,
  HEAD_INDEX,
  INLINE_BYTES_MAX,
  type OutboxLayout,
  RECORD_ALIGN_BYTES,
  RECORD_HEADER_BYTES,
  RING_OFFSET,
  TAIL_INDEX,
  TYPE_PADDING,
} from '../memory/outbox-layout.js';
import { loadAfterStore } from './words.js';

/** A descriptor's record is 32 bytes, and before the ring's end up to 24 of padding. */
const PROMISE_BYTES = 64;
/** Payloads up to this may be copied by 64-bit words. */
const LONG_COPY_BYTES_MAX = 64;

export class RecordProducer {
  /** The greatest payload of one record. */
  readonly inlineBytesMax: number;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #longs: BigInt64Array;
  readonly #peerWords: Int32Array;
  readonly #capacity: number;
  readonly #alwaysRing: boolean;
  #tail: number;
  #published: number;
  #headSeen: number;
  #rungFor = 0;
  #asleep = 0;
  /** Bytes set aside for the descriptors of open chunk loans: their `send` never finds it full. */
  #promised = 0;
  /** Padding took records along that were not published yet: the next publish must still ring. */
  #ringOwed = false;
  readonly #source: LongView = new LongView();

  /**
   * @param words - this side's outbox, writable.
   * @param peerWords - the other side's outbox.
   * @param alwaysRing - the peer cannot fence its sleep word: ring at every publish.
   * @param start - where the cursors begin: 0 in a fresh outbox; tests begin just below 2^32.
   */
  constructor(
    words: Int32Array,
    bytes: Uint8Array,
    peerWords: Int32Array,
    layout: OutboxLayout,
    alwaysRing: boolean,
    start: number = 0,
  ) {
    this.#words = words;
    this.#bytes = bytes;
    this.#longs = new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.length >> 3);
    this.#peerWords = peerWords;
    this.#capacity = layout.ringBytes;
    this.#alwaysRing = alwaysRing;
    this.#tail = this.#published = this.#headSeen = start | 0;
    this.inlineBytesMax = Math.min(layout.ringBytes / 8, INLINE_BYTES_MAX);
  }

  /** Bytes of records that the peer has not released. */
  get usedBytes(): number {
    return (this.#tail - this.#headSeen) >>> 0;
  }

  /** Where the next record will start: a free-running count of bytes. */
  get tail(): number {
    return this.#tail;
  }

  /** Whether all that was published has been released. Reads the peer's head. */
  drained(): boolean {
    this.#readHead();
    return this.#published === this.#headSeen;
  }

  /**
   * Finds room for a record of `lengthBytes` (at most `inlineBytesMax`).
   * @returns the offset of its payload in the outbox, or -1 when the ring is full. Nothing is
   * taken until `commit`.
   * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`.
   */
  tryReserve(lengthBytes: number): number {
    const capacity = this.#capacity;
    const size = RECORD_HEADER_BYTES + ((lengthBytes + 7) & ~7);
    const at = this.#tail & (capacity - 1);
    const rest = capacity - at;
    const padding = size > rest ? rest : 0;
    if (this.usedBytes + this.#promised + padding + size > capacity) {
      this.#readHead();
      const free = capacity - this.usedBytes - this.#promised;
      if (free < padding + size) {
        // Publishing the padding now lets the reader release the ring's end meanwhile.
        if (padding > 0 && free >= padding) this.#pad(at, padding);
        return -1;
      }
    }
    if (padding === 0) return RING_OFFSET + at + RECORD_HEADER_BYTES;
    this.#pad(at, padding);
    return RING_OFFSET + RECORD_HEADER_BYTES;
  }

  /** Sets room aside for one descriptor; `false` when the ring is full. */
  tryPromise(): boolean {
    if (this.usedBytes + this.#promised + PROMISE_BYTES > this.#capacity) {
      this.#readHead();
      if (this.usedBytes + this.#promised + PROMISE_BYTES > this.#capacity) return false;
    }
    this.#promised += PROMISE_BYTES;
    return true;
  }

  /** Gives a promised room up: before the descriptor is reserved, or instead. */
  takePromise(): void {
    this.#promised -= PROMISE_BYTES;
  }

  /** Completes the record whose payload `tryReserve` placed; the peer sees it when published. */
  commit(lengthBytes: number, type: number, id: number): void {
    const index = (RING_OFFSET + (this.#tail & (this.#capacity - 1))) >> 2;
    const words = this.#words;
    words[index] = lengthBytes | (type << 16);
    words[index + 1] = id;
    this.#tail = (this.#tail + RECORD_HEADER_BYTES + ((lengthBytes + 7) & ~7)) | 0;
  }

  /** Copies `bytes` into a record; `false` when the ring is full. */
  tryWrite(bytes: Uint8Array, type: number, id: number): boolean {
    const lengthBytes = bytes.length;
    const offset = this.tryReserve(lengthBytes);
    if (offset < 0) return false;
    if (lengthBytes <= LONG_COPY_BYTES_MAX) this.#copySmall(bytes, offset, lengthBytes);
    else this.#bytes.set(bytes, offset);
    this.commit(lengthBytes, type, id);
    return true;
  }

  /**
   * Lets the peer see all committed records.
   * @returns whether the peer announced that it sleeps, and was not rung for that yet.
   */
  publish(): boolean {
    if (this.#tail === this.#published && !this.#ringOwed) return false;
    this.#ringOwed = false;
    this.#published = this.#tail;
    // RELEASE tail, pairs with ACQUIRE tail in RecordConsumer: the records come before it.
    // SEQ_CST against the sleep word: the peer stores it and then reads the tail again.
    Atomics.store(this.#words, TAIL_INDEX, this.#tail);
    return this.mustRing();
  }

  /** Whether the peer sleeps for records and was not rung for it. */
  mustRing(): boolean {
    // SEQ_CST sleep word, pairs with the announcement in RecordConsumer.
    const asleep = loadAfterStore(this.#peerWords, ASLEEP_FOR_RECORDS_INDEX);
    if (this.#alwaysRing) return true;
    if ((asleep & 1) === 0 || asleep === this.#rungFor) return false;
    this.#rungFor = asleep;
    return true;
  }

  /** Whether the announcement stands. */
  get asleep(): boolean {
    return (this.#asleep & 1) === 1;
  }

  /** Announces that this side sleeps for space; then look for space once more, then sleep. */
  announceSleep(): void {
    this.#asleep = (this.#asleep + 1) | 1;
    // SEQ_CST, pairs with the releaser's read after its head or release tail.
    Atomics.store(this.#words, ASLEEP_FOR_SPACE_INDEX, this.#asleep);
  }

  /** Takes the announcement back. */
  awake(): void {
    if ((this.#asleep & 1) === 0) return;
    this.#asleep = (this.#asleep + 1) | 0;
    Atomics.store(this.#words, ASLEEP_FOR_SPACE_INDEX, this.#asleep);
  }

  /** Copies up to 64 bytes: by 64-bit words where the caller sends from the same view again. */
  #copySmall(bytes: Uint8Array, offset: number, lengthBytes: number): void {
    const longs = this.#source.of(bytes);
    const count = lengthBytes >> 3;
    if (longs.length !== count || count === 0) {
      this.#bytes.set(bytes, offset);
      return;
    }
    copyLongs(longs, 0, this.#longs, offset >> 3, count);
    for (let i = count << 3; i < lengthBytes; i++) this.#bytes[offset + i] = bytes[i] as number;
  }

  #pad(at: number, padding: number): void {
    this.#words[(RING_OFFSET + at) >> 2] = (padding >> 3) | (TYPE_PADDING << 16);
    this.#tail = (this.#tail + padding) | 0;
    this.#published = this.#tail;
    this.#ringOwed = true;
    // RELEASE tail, as in `publish`.
    Atomics.store(this.#words, TAIL_INDEX, this.#tail);
  }

  #readHead(): void {
    // ACQUIRE head, pairs with RELEASE head in RecordConsumer: records below it have been read.
    const head = Atomics.load(this.#peerWords, HEAD_INDEX);
    if (head === this.#headSeen) return;
    const released = (head - this.#headSeen) >>> 0;
    const outstanding = (this.#published - this.#headSeen) >>> 0;
    if (released > outstanding || (head & (RECORD_ALIGN_BYTES - 1)) !== 0) {
      throw peerMisbehaved(
        `its head ${head >>> 0} is not between ${this.#headSeen >>> 0} and ` +
          `${this.#published >>> 0} in steps of 8`,
      );
    }
    this.#headSeen = head;
  }
}
