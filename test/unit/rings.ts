// A record ring between two outboxes in plain memory, and hands to spoil it as a hostile peer may.
import assert from 'node:assert/strict';
import { UkshmError } from '../../src/core/errors.js';
import {
  HEAD_INDEX,
  type OutboxLayout,
  outboxLayout,
  RECORD_HEADER_BYTES,
  RING_OFFSET,
  TAIL_INDEX,
} from '../../src/memory/outbox-layout.js';
import { HeldRecord, RecordConsumer, RecordCursor } from '../../src/ring/consumer.js';
import { RecordProducer } from '../../src/ring/producer.js';
import { nowMs } from '../../src/sys/clock.js';

/** A record as it was read. */
export interface Seen {
  readonly kind: 'inline' | 'descriptor';
  /** Of the payload, in the producer's outbox. */
  readonly offset: number;
  readonly lengthBytes: number;
  readonly type: number;
  readonly id: number;
  readonly held: HeldRecord | undefined;
}

export interface RingOptions {
  readonly ringBytes?: number;
  /** Where the cursors begin; negative: so far below 2^32. */
  readonly start?: number;
  readonly alwaysRing?: boolean;
}

/** One direction: the outbox of the producer, and the one of the consumer. */
export class Ring {
  readonly layout: OutboxLayout;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The producer's outbox. */
  readonly words: Int32Array<ArrayBuffer>;
  /** The consumer's outbox. */
  readonly peerWords: Int32Array<ArrayBuffer>;
  readonly producer: RecordProducer;
  readonly consumer: RecordConsumer;
  readonly cursor: RecordCursor;

  constructor(options: RingOptions = {}) {
    const { ringBytes = 4096, start = 0, alwaysRing = false } = options;
    this.layout = outboxLayout(ringBytes, 0);
    this.bytes = new Uint8Array(this.layout.totalBytes);
    this.words = new Int32Array(this.bytes.buffer);
    this.peerWords = new Int32Array(this.layout.totalBytes / 4);
    this.words[TAIL_INDEX] = this.peerWords[HEAD_INDEX] = start;
    const { words, bytes, peerWords, layout } = this;
    this.producer = new RecordProducer(words, bytes, peerWords, layout, alwaysRing, start);
    this.consumer = new RecordConsumer(peerWords, words, layout, alwaysRing, start);
    this.cursor = new RecordCursor(bytes, new BigInt64Array(bytes.buffer));
  }

  /** Writes a record whose payload is `lengthBytes` times `fill`. */
  write(lengthBytes: number, fill: number = 0, type: number = 0, id: number = 0): boolean {
    return this.producer.tryWrite(new Uint8Array(lengthBytes).fill(fill), type, id);
  }

  /** Reads up to `limit` records; holds those of which `hold` says so. */
  read(limit: number = Infinity, hold: (index: number) => boolean = () => false): Seen[] {
    const seen: Seen[] = [];
    const cursor = this.cursor;
    const visitor = {
      onInline: (): boolean => {
        const { offset, lengthBytes, type, id } = cursor;
        const held = hold(seen.length) ? new HeldRecord() : undefined;
        if (held !== undefined) this.consumer.hold(held, offset);
        seen.push({ kind: 'inline', offset, lengthBytes, type, id, held });
        return true;
      },
      onDescriptor: (offset: number, id: number): boolean => {
        seen.push({ kind: 'descriptor', offset, lengthBytes: 24, type: 0, id, held: undefined });
        return true;
      },
    };
    const count = this.consumer.drain(cursor, visitor, limit, nowMs);
    assert.equal(count, seen.length);
    return seen;
  }

  /** Reads all and gives the space back. */
  empty(): number {
    const count = this.read().length;
    this.consumer.publishHead();
    return count;
  }

  release(seen: Seen): void {
    assert.ok(seen.held !== undefined);
    this.consumer.release(seen.held);
  }

  payload(seen: Seen): Uint8Array {
    return this.bytes.slice(seen.offset, seen.offset + seen.lengthBytes);
  }

  /** Writes a header at a cursor's place in the ring, as a hostile producer may. */
  forge(position: number, type: number, length: number): void {
    const at = position & (this.layout.ringBytes - 1);
    this.words[(RING_OFFSET + at) >> 2] = length | (type << 16);
  }
}

/** Bytes that a record of `lengthBytes` takes in the ring. */
export function recordBytes(lengthBytes: number): number {
  return RECORD_HEADER_BYTES + Math.ceil(lengthBytes / 8) * 8;
}

/** Moves all cursors of an empty ring on by `bytes`, a multiple of 8. */
export function advance(ring: Ring, bytes: number): void {
  for (let left = bytes; left > 0; ) {
    const size = Math.min(left, 256);
    assert.ok(ring.write(size - 8));
    ring.producer.publish();
    ring.empty();
    left -= size;
  }
  assert.ok(ring.producer.drained());
}

/** Asserts that `action` throws an error with this code, and answers it. */
export function throwsCode(code: string, action: () => unknown, message?: RegExp): UkshmError {
  let thrown: unknown;
  try {
    action();
  } catch (error) {
    thrown = error;
  }
  assert.ok(thrown instanceof UkshmError, `expected ${code}, not ${String(thrown)}`);
  assert.equal(thrown.code, code, thrown.message);
  if (message !== undefined) assert.match(thrown.message, message);
  return thrown;
}
