// The sending half of a channel: this side's outbox, its arena, and what of it the peer holds.
import { checkInteger } from '../core/check.js';
import { invalidArgument, UkshmError } from '../core/errors.js';
import { ChunkAllocator } from '../memory/chunk-allocator.js';
import { HUGE_PAGE_BYTES, type Mapping } from '../memory/mapping.js';
import { DESCRIPTOR_BYTES, type OutboxLayout, TYPE_DESCRIPTOR } from '../memory/outbox-layout.js';
import { RecordProducer } from '../ring/producer.js';
import { ReleaseReader } from '../ring/releases.js';
import { type Kind, MESSAGE, recordType, TYPE_MAX } from './kinds.js';
import { LeaseTable, type Lent } from './leases.js';
import { type Loan, type LoanOwner, OutboxLoan } from './loan.js';

/** The u32 id that a message may carry, for whoever correlates requests and replies. */
export const ID_MAX = 0xffffffff;
/** Messages up to this travel inside the ring; larger ones as chunks. */
const INLINE_BYTES_USUAL = 8192;
/** Chunks are multiples of this; larger where the arena has more than 65 536 of them. */
const GRANULE_BYTES_MIN = 4096;
const GRANULES_MAX = 65536;

/** What a sender needs to know beside its memory. */
export interface SenderOptions {
  readonly inFlightBytes: number;
  readonly alwaysRing: boolean;
  /** Wakes the peer. */
  readonly ring: () => void;
  /** A loan was given up: others of this side may have its space. */
  readonly onDiscard: () => void;
}

export class Sender implements LoanOwner {
  readonly layout: OutboxLayout;
  /** The largest message. */
  readonly messageBytesMax: number;
  readonly #mapping: Mapping;
  readonly #producer: RecordProducer;
  readonly #releases: ReleaseReader;
  readonly #leases: LeaseTable = new LeaseTable();
  /** By the granule at which a chunk starts: at most GRANULES_MAX. */
  readonly #lentChunks: Map<number, Lent> = new Map();
  readonly #arena: ChunkAllocator;
  readonly #inlineBytesMax: number;
  readonly #options: SenderOptions;
  #lentBytes = 0;
  #inlineOpen = false;
  #forwardedCount = 0;
  /** Why nothing can be sent any more. */
  #stopped: UkshmError | undefined = undefined;
  rings = 0;

  constructor(
    mapping: Mapping,
    layout: OutboxLayout,
    peer: Mapping,
    peerLayout: OutboxLayout,
    options: SenderOptions,
  ) {
    this.layout = layout;
    this.#mapping = mapping;
    this.#options = options;
    const { words, bytes } = mapping;
    this.#producer = new RecordProducer(words, bytes, peer.words, layout, options.alwaysRing);
    this.#releases = new ReleaseReader(peer.words, peerLayout);
    let granule = GRANULE_BYTES_MIN;
    while (layout.arenaBytes / granule > GRANULES_MAX) granule *= 2;
    this.#arena = new ChunkAllocator(layout.arenaBytes, granule, HUGE_PAGE_BYTES);
    this.#inlineBytesMax = Math.min(this.#producer.inlineBytesMax, INLINE_BYTES_USUAL);
    this.messageBytesMax = Math.max(layout.arenaBytes, this.#inlineBytesMax);
  }

  get lentBytes(): number {
    return this.#lentBytes;
  }

  get lentCount(): number {
    return this.#leases.count;
  }

  get ringBytesUsed(): number {
    return this.#producer.usedBytes;
  }

  /** Where the next record will start: a free-running count of bytes. */
  get ringTail(): number {
    return this.#producer.tail;
  }

  /** From now on every send fails with `reason`. */
  stop(reason: UkshmError): void {
    this.#stopped ??= reason;
  }

  /** The peer is gone: what it held is ours again. */
  revoke(): void {
    this.#leases.revokeAll();
  }

  view(offset: number, lengthBytes: number): Uint8Array {
    if (this.#stopped !== undefined && this.#mapping.closed) throw this.#stopped;
    return new Uint8Array(this.#mapping.buffer as ArrayBuffer, offset, lengthBytes);
  }

  tryLoan(lengthBytes: number, type: number, id: number): Loan | undefined {
    this.#check(lengthBytes, type, id);
    if (lengthBytes <= this.#inlineBytesMax) {
      const offset = this.#producer.tryReserve(lengthBytes);
      if (offset < 0) return this.#full();
      this.#inlineOpen = true;
      return new OutboxLoan(this, offset, lengthBytes, -1, type, id);
    }
    const chunk = this.#tryChunk(lengthBytes);
    if (chunk < 0) return this.#full();
    const offset = this.#chunkOffset(chunk);
    return new OutboxLoan(this, offset, lengthBytes, chunk, type, id);
  }

  /** Copies `bytes` into a message; `false` when full. Publishes unless told not to. */
  trySend(
    bytes: Uint8Array,
    programType: number,
    id: number,
    publish: boolean,
    kind: Kind = MESSAGE,
  ): boolean {
    const lengthBytes = bytes.length;
    this.#check(lengthBytes, programType, id);
    const type = recordType(kind, programType);
    if (lengthBytes <= this.#inlineBytesMax) {
      if (!this.#producer.tryWrite(bytes, type, id)) return this.#full() ?? false;
    } else {
      const chunk = this.#tryChunk(lengthBytes);
      if (chunk < 0) return this.#full() ?? false;
      this.#mapping.bytes.set(bytes, this.#chunkOffset(chunk));
      this.commitChunk(chunk, lengthBytes, type, id);
    }
    if (publish) this.publish();
    return true;
  }

  /** Sends a loan of this side as something that was not decided when it was taken. */
  sendLoan(loan: Loan, kind: Kind, type: number, id: number, lengthBytes?: number): void {
    if (!(loan instanceof OutboxLoan) || loan.owner !== this) {
      throw invalidArgument('body', loan, 'a Uint8Array, or a loan of this channel');
    }
    checkInteger('type', type, 0, TYPE_MAX);
    loan.sendAs(recordType(kind, type), id, lengthBytes, true);
  }

  /** Lets the peer see what was committed, and wakes it if it sleeps. */
  publish(): void {
    if (this.#producer.publish()) this.ring();
  }

  /** As `publish`, but leaves the waking to the caller. @returns whether to `ring`. */
  publishQuietly(): boolean {
    return this.#producer.publish();
  }

  commitInline(lengthBytes: number, type: number, id: number): void {
    if (this.#stopped !== undefined) throw this.#stopped;
    this.#inlineOpen = false;
    this.#producer.commit(lengthBytes, type, id);
  }

  discardInline(): void {
    this.#inlineOpen = false;
    this.#options.onDiscard();
  }

  commitChunk(chunk: number, lengthBytes: number, type: number, id: number): void {
    this.#checkInlineOpen();
    if (this.#stopped !== undefined) throw this.#stopped;
    this.#producer.takePromise();
    const lent = this.#lentAt(chunk);
    this.#describe(lent, this.#chunkOffset(chunk), lengthBytes, 0, type, id);
  }

  discardChunk(chunk: number): void {
    this.#producer.takePromise();
    this.#freeChunk(chunk);
    this.#options.onDiscard();
  }

  #freeChunk(chunk: number): void {
    this.#lentBytes -= this.#arena.occupiedBytes(chunk);
    this.#arena.free(chunk);
  }

  /** What brings the chunk back that starts at this granule: the same few are lent again. */
  #lentAt(chunk: number): Lent {
    let lent = this.#lentChunks.get(chunk);
    if (lent === undefined) {
      lent = { comeBack: () => this.#freeChunk(chunk) };
      this.#lentChunks.set(chunk, lent);
    }
    return lent;
  }

  /**
   * Hands on what lies in a region that the peer has imported; `lent` comes back when it releases.
   * @returns `false` when the ring or the table of leases is full.
   */
  tryForward(
    lent: Lent,
    region: number,
    offset: number,
    lengthBytes: number,
    type: number,
    id: number,
  ): boolean {
    const comeBack = (): void => {
      this.#forwardedCount--;
      lent.comeBack();
    };
    if (!this.tryLend({ comeBack }, region, offset, lengthBytes, type, id)) return false;
    this.#forwardedCount++;
    this.publish();
    return true;
  }

  /**
   * As `tryForward`, but publishes nothing, and nobody else waits for what comes back: for memory of
   * this process that several channels share.
   */
  tryLend(
    lent: Lent,
    region: number,
    offset: number,
    lengthBytes: number,
    type: number,
    id: number,
  ): boolean {
    this.#check(0, type, id);
    if (!this.#tryPromise()) return false;
    this.#producer.takePromise();
    this.#describe(lent, offset, lengthBytes, region, type, id);
    return true;
  }

  /** Reads what the peer released; whether anything was. */
  collect(): boolean {
    if (this.#leases.count === 0) return false;
    return this.#releases.drain(this.#leases.count, this.#onRelease) > 0;
  }

  /** Whether the peer has read and released everything. */
  drained(): boolean {
    this.collect();
    return this.#producer.drained() && this.#leases.count === 0;
  }

  /** Whether others wait for what the peer releases: messages of theirs were forwarded to it. */
  get owesReleases(): boolean {
    return this.#forwardedCount > 0;
  }

  get asleep(): boolean {
    return this.#producer.asleep;
  }

  announceSleep(): void {
    this.#producer.announceSleep();
  }

  awake(): void {
    this.#producer.awake();
  }

  readonly #onRelease = (lease: number, generation: number): void => {
    this.#leases.release(lease, generation);
  };

  #check(lengthBytes: number, type: number, id: number): void {
    if (this.#stopped !== undefined) throw this.#stopped;
    if (this.#inlineOpen) this.#checkInlineOpen();
    const whole = lengthBytes >>> 0 === lengthBytes;
    if (!whole || lengthBytes > this.messageBytesMax) this.#refuse(lengthBytes);
    if (type !== 0) checkInteger('type', type, 0, TYPE_MAX);
    if (id !== 0) checkInteger('id', id, 0, ID_MAX);
  }

  #refuse(lengthBytes: number): never {
    if (!Number.isInteger(lengthBytes) || lengthBytes < 0) {
      checkInteger('lengthBytes', lengthBytes, 0, this.messageBytesMax);
    }
    throw new UkshmError(
      'ERR_UKSHM_MESSAGE_TOO_LONG',
      `a message of ${lengthBytes} bytes; this channel takes up to ${this.messageBytesMax}: ` +
        'ask for a larger arena in connect() or listen()',
    );
  }

  #checkInlineOpen(): void {
    if (!this.#inlineOpen) return;
    throw new UkshmError(
      'ERR_UKSHM_LOAN_OPEN',
      `a loan of at most ${this.#inlineBytesMax} bytes is open: these are sent in order, so send ` +
        'or discard it first (larger loans are free in number)',
    );
  }

  /** The peer can make room only by reading: it shall see what it was not shown yet. */
  #full(): undefined {
    this.publish();
  }

  #tryPromise(): boolean {
    if (this.#leases.full && !this.collect()) return false;
    return this.#producer.tryPromise();
  }

  /** A chunk and the room for its descriptor, or -1. */
  #tryChunk(lengthBytes: number): number {
    if (this.#overBound(lengthBytes)) {
      this.collect();
      if (this.#overBound(lengthBytes)) return -1;
    }
    if (!this.#tryPromise()) return -1;
    let chunk = this.#arena.tryAlloc(lengthBytes, 1, false);
    if (chunk < 0 && this.collect()) chunk = this.#arena.tryAlloc(lengthBytes, 1, false);
    if (chunk < 0) this.#producer.takePromise();
    else this.#lentBytes += this.#arena.occupiedBytes(chunk);
    return chunk;
  }

  /** Bytes in flight are bounded to what the cache holds; two messages always are allowed. */
  #overBound(lengthBytes: number): boolean {
    return (
      this.#lentBytes + lengthBytes > this.#options.inFlightBytes && this.#arena.chunkCount >= 2
    );
  }

  #chunkOffset(chunk: number): number {
    return this.layout.arenaOffset + chunk * this.#arena.granuleBytes;
  }

  #describe(
    lent: Lent,
    offset: number,
    lengthBytes: number,
    region: number,
    type: number,
    id: number,
  ): void {
    const at = this.#producer.tryReserve(DESCRIPTOR_BYTES);
    const lease = this.#leases.lend(lent);
    const index = at >> 2;
    const words = this.#mapping.words;
    words[index] = offset;
    words[index + 1] = lengthBytes;
    words[index + 2] = lease;
    words[index + 3] = this.#leases.generation(lease);
    words[index + 4] = region;
    words[index + 5] = type;
    this.#producer.commit(DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, id);
  }

  ring(): void {
    this.rings++;
    this.#options.ring();
  }
}
