import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  DESCRIPTOR_BYTES,
  INLINE_BYTES_MAX,
  RING_OFFSET,
  STATE_CLOSING,
  TAIL_INDEX,
  TYPE_DESCRIPTOR,
  TYPE_MAX,
} from '../../src/memory/outbox-layout.js';
import { nowMs } from '../../src/sys/clock.js';
import { advance, Ring, recordBytes } from './rings.js';

const CAPACITY = 4096;
const INLINE_MAX = CAPACITY / 8;

describe('a record ring', () => {
  it('delivers lengths, types, ids and bytes, from nothing to the most', () => {
    const ring = new Ring();
    const lengths = [0, 1, 3, 4, 7, 8, 9, 63, 64, 65, INLINE_MAX - 1, INLINE_MAX];
    for (const [i, length] of lengths.entries()) {
      assert.ok(ring.write(length, i + 1, TYPE_MAX - i, 0xffffffff - i));
    }
    assert.deepEqual(ring.read(), [], 'nothing before it is published');
    ring.producer.publish();
    for (const [i, seen] of ring.read().entries()) {
      assert.equal(seen.lengthBytes, lengths[i]);
      assert.equal(seen.type, TYPE_MAX - i);
      assert.equal(seen.id, 0xffffffff - i);
      assert.deepEqual(ring.payload(seen), new Uint8Array(lengths[i]).fill(i + 1));
    }
    assert.deepEqual(ring.read(), []);
  });

  it('bounds inline records to an eighth of the ring and to 65 520 bytes', () => {
    assert.equal(new Ring({ ringBytes: 4096 }).producer.inlineBytesMax, 512);
    const large = new Ring({ ringBytes: 2 ** 20 });
    assert.equal(large.producer.inlineBytesMax, INLINE_BYTES_MAX);
    assert.ok(large.write(INLINE_BYTES_MAX, 7));
    large.producer.publish();
    const [seen] = large.read();
    assert.equal(seen.lengthBytes, INLINE_BYTES_MAX);
    assert.ok(large.payload(seen).every((byte) => byte === 7));
  });

  it('reads up to the limit and goes on from there', () => {
    const ring = new Ring();
    for (let id = 0; id < 10; id++) assert.ok(ring.write(8, 0, 0, id));
    ring.producer.publish();
    const batches = [ring.read(0), ring.read(3), ring.read(1), ring.read()];
    const ids = batches.map((batch) => batch.map((seen) => seen.id));
    assert.deepEqual(ids, [[], [0, 1, 2], [3], [4, 5, 6, 7, 8, 9]]);
  });

  it('sends a buffer that is used again and again as it is at that moment', () => {
    // Goal: the copy by words, used for a source that comes again, copies every byte of it anew.
    const ring = new Ring();
    const whole = new Uint8Array(256);
    for (let lengthBytes = 0; lengthBytes <= 72; lengthBytes++) {
      for (let at = 0; at < 5; at++) {
        const source = whole.subarray(at, at + lengthBytes);
        for (let round = 0; round < 4; round++) {
          for (let i = 0; i < lengthBytes; i++) source[i] = lengthBytes + 7 * round + at + i;
          assert.ok(ring.producer.tryWrite(source, 0, 0));
          ring.producer.publish();
          const [seen] = ring.read();
          assert.deepEqual(ring.payload(seen), new Uint8Array(source));
          ring.consumer.publishHead();
        }
      }
    }
  });

  it('sends a buffer whose length changes between two sends', () => {
    const ring = new Ring();
    // ECMAScript 2024; Node 20 has it, the compiler's library of 2022 does not know it.
    const Resizable = ArrayBuffer as unknown as new (
      length: number,
      options: object,
    ) => ArrayBuffer & { resize(length: number): void };
    const buffer = new Resizable(8, { maxByteLength: 64 });
    const source = new Uint8Array(buffer);
    for (const lengthBytes of [8, 8, 8, 64, 64, 64, 4, 4, 4]) {
      buffer.resize(lengthBytes);
      source.fill(lengthBytes);
      ring.producer.tryWrite(source, 0, 0);
      ring.producer.publish();
      const [seen] = ring.read();
      assert.deepEqual(ring.payload(seen), new Uint8Array(lengthBytes).fill(lengthBytes));
    }
  });

  it('takes exactly what fits, and not a byte more', () => {
    const ring = new Ring();
    for (let i = 0; i < CAPACITY / 256; i++) assert.ok(ring.write(248, i));
    assert.equal(ring.producer.usedBytes, CAPACITY);
    assert.equal(ring.write(0), false);
    ring.producer.publish();
    assert.equal(ring.read(1).length, 1);
    assert.equal(ring.write(0), false, 'read, but the head is not published');
    assert.ok(ring.consumer.publishHead());
    assert.equal(ring.write(249), false, 'one byte longer than the space');
    assert.ok(ring.write(248, 99));
    assert.equal(ring.write(0), false);
    ring.producer.publish();
    assert.equal(ring.read().length + ring.read().length, CAPACITY / 256);
  });

  it('ends a record exactly at the end of the ring without padding', () => {
    const ring = new Ring();
    advance(ring, CAPACITY - 64);
    assert.ok(ring.write(56, 1));
    assert.equal(ring.producer.usedBytes, 64);
    assert.ok(ring.write(8, 2));
    assert.equal(ring.producer.usedBytes, 80);
    ring.producer.publish();
    const [last, first] = ring.read();
    assert.equal(last.offset, RING_OFFSET + CAPACITY - 56);
    assert.equal(first.offset, RING_OFFSET + 8);
  });

  it('pads the end of the ring, whatever is left there, also where the cursor wraps', () => {
    for (let padding = 8; padding <= INLINE_MAX; padding += 8) {
      const ring = new Ring({ start: -CAPACITY });
      advance(ring, CAPACITY - padding);
      // One header longer than the rest.
      assert.ok(ring.write(padding, 5, 3, 4));
      assert.equal(ring.producer.usedBytes, padding + recordBytes(padding));
      assert.equal(ring.words[TAIL_INDEX], 0, 'the padding is published at once');
      assert.deepEqual(ring.read(), []);
      ring.producer.publish();
      const [seen] = ring.read();
      assert.equal(seen.offset, RING_OFFSET + 8);
      assert.deepEqual([seen.type, seen.id], [3, 4]);
      assert.ok(ring.payload(seen).every((byte) => byte === 5));
      ring.consumer.publishHead();
      assert.ok(ring.producer.drained());
    }
  });

  it('publishes the padding even if the record behind it does not fit', () => {
    const ring = new Ring();
    advance(ring, 256);
    for (let i = 0; i < 14; i++) assert.ok(ring.write(248));
    assert.ok(ring.write(184));
    assert.equal(ring.producer.usedBytes, CAPACITY - 64 - 256);
    // 64 bytes are left before the end and 256 behind it.
    assert.equal(ring.write(504), false);
    assert.equal(ring.producer.usedBytes, CAPACITY - 256);
    assert.equal(ring.write(504), false);
    assert.equal(ring.producer.usedBytes, CAPACITY - 256, 'padded once');
    assert.equal(ring.read().length, 15, 'what was committed before is published with it');
    ring.consumer.publishHead();
    assert.ok(ring.write(504));
    assert.equal(ring.producer.usedBytes, 512);
  });

  it('gives a reserved record up without a trace', () => {
    const ring = new Ring();
    assert.equal(ring.producer.tryReserve(100), RING_OFFSET + 8);
    assert.equal(ring.producer.tryReserve(40), RING_OFFSET + 8);
    assert.equal(ring.producer.usedBytes, 0);
    ring.producer.commit(40, 1, 2);
    ring.producer.publish();
    const lengths = ring.read().map((seen) => seen.lengthBytes);
    assert.deepEqual(lengths, [40]);
  });

  it('commits less than was reserved', () => {
    const ring = new Ring();
    ring.producer.tryReserve(100);
    ring.producer.commit(3, 0, 0);
    assert.equal(ring.producer.usedBytes, 16);
  });

  it('tells when all that was published has been released', () => {
    const ring = new Ring();
    assert.ok(ring.producer.drained());
    ring.write(8);
    ring.producer.publish();
    assert.equal(ring.producer.drained(), false);
    const [seen] = ring.read(1, () => true);
    ring.consumer.publishHead();
    assert.equal(ring.producer.drained(), false);
    ring.release(seen);
    ring.consumer.publishHead();
    assert.ok(ring.producer.drained());
  });

  it('goes through all 2^32 cursors', () => {
    const ring = new Ring({ ringBytes: 2 ** 20 });
    const { producer, consumer } = ring;
    let ids = 0;
    let written = 0;
    while (written <= 2 ** 32 + 2 ** 20) {
      while (producer.tryReserve(INLINE_BYTES_MAX) >= 0) {
        producer.commit(INLINE_BYTES_MAX, 0, ids++);
        written += recordBytes(INLINE_BYTES_MAX);
      }
      producer.publish();
      const seen = ring.read();
      assert.equal(seen[seen.length - 1].id, ids - 1);
      consumer.publishHead();
    }
    assert.ok(producer.drained());
  });
});

describe('released records', () => {
  it('give back the prefix only, in whatever order they are released', () => {
    const ring = new Ring();
    for (let i = 0; i < 4; i++) ring.write(1016 - 512, i);
    ring.producer.publish();
    const held = ring.read(Infinity, () => true);
    assert.equal(ring.consumer.heldCount, 4);
    const freed = (index: number): number => {
      ring.release(held[index]);
      ring.consumer.publishHead();
      ring.producer.drained();
      return ring.producer.usedBytes;
    };
    assert.deepEqual([2, 1, 0, 3].map(freed), [2048, 2048, 512, 0]);
    assert.equal(ring.consumer.heldCount, 0);
  });

  it('hold up the ring behind them, and no record before them', () => {
    const ring = new Ring();
    for (let i = 0; i < 3; i++) ring.write(504, i);
    ring.producer.publish();
    const [, second] = ring.read(Infinity, (index) => index === 1);
    ring.consumer.publishHead();
    ring.producer.drained();
    assert.equal(ring.producer.usedBytes, 1024);
    assert.deepEqual(ring.payload(second), new Uint8Array(504).fill(1));
    ring.release(second);
    ring.consumer.publishHead();
    assert.ok(ring.producer.drained());
  });

  it('can be one that fills the ring to its end', () => {
    const ring = new Ring();
    advance(ring, CAPACITY - 16);
    ring.write(8, 9);
    ring.producer.publish();
    const [seen] = ring.read(1, () => true);
    assert.equal(ring.consumer.publishHead(), false);
    ring.release(seen);
    ring.consumer.publishHead();
    assert.ok(ring.producer.drained());
  });

  it('move the head at every quarter of the ring while a drain goes on', () => {
    const ring = new Ring();
    for (let i = 0; i < 16; i++) ring.write(248);
    ring.producer.publish();
    const used: number[] = [];
    ring.read(Infinity, () => {
      ring.producer.drained();
      used.push(ring.producer.usedBytes / 256);
      return false;
    });
    assert.deepEqual(used, [16, 16, 16, 16, 12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4]);
  });
});

describe('room promised to descriptors', () => {
  it('is there when it is needed, wherever in the ring, and cannot be taken by records', () => {
    for (let start = 0; start < CAPACITY; start += 8) {
      const ring = new Ring({ start });
      const { producer } = ring;
      let promises = 0;
      while (producer.tryPromise()) promises++;
      assert.equal(promises, CAPACITY / 64);
      assert.equal(ring.write(0), false);
      for (; promises > 0; promises--) {
        producer.takePromise();
        assert.notEqual(producer.tryReserve(DESCRIPTOR_BYTES), -1);
        producer.commit(DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, promises);
      }
      producer.publish();
      const seen = ring.read();
      assert.equal(seen.length, CAPACITY / 64);
      assert.ok(seen.every((one) => one.kind === 'descriptor'));
    }
  });

  it('is refused when records have taken it', () => {
    const ring = new Ring();
    for (let i = 0; i < 15; i++) ring.write(248);
    ring.write(248 - 56);
    assert.equal(ring.producer.usedBytes, CAPACITY - 56);
    assert.equal(ring.producer.tryPromise(), false);
    ring.producer.publish();
    ring.empty();
    assert.ok(ring.producer.tryPromise());
  });

  it('leaves the rest to records, without padding into it', () => {
    const ring = new Ring();
    advance(ring, CAPACITY - 128);
    for (let i = 0; i < 63; i++) assert.ok(ring.producer.tryPromise());
    // 64 bytes are free, 128 before the end: neither the record nor its padding has room.
    assert.equal(ring.write(128), false);
    assert.equal(ring.producer.usedBytes, 0);
    assert.ok(ring.write(56));
    assert.equal(ring.write(0), false);
  });

  it('is free again when given up', () => {
    const ring = new Ring();
    while (ring.producer.tryPromise());
    ring.producer.takePromise();
    assert.ok(ring.write(56));
    assert.equal(ring.write(0), false);
  });
});

describe('a drain', () => {
  it('stops behind the record whose visitor says so', () => {
    const ring = new Ring();
    for (let id = 0; id < 3; id++) ring.write(8, 0, 0, id);
    ring.producer.publish();
    const visitor = { onInline: () => false, onDescriptor: () => false };
    assert.equal(ring.consumer.drain(ring.cursor, visitor, 100, nowMs), 1);
    assert.deepEqual(
      ring.read().map((seen) => seen.id),
      [1, 2],
    );
  });

  it('counts the record as read whose visitor throws', () => {
    const ring = new Ring();
    for (let id = 0; id < 3; id++) ring.write(8, 0, 0, id);
    ring.producer.publish();
    const visitor = {
      onInline: (): boolean => {
        throw new Error('of the program');
      },
      onDescriptor: () => true,
    };
    const drain = (): number => ring.consumer.drain(ring.cursor, visitor, 100, nowMs);
    assert.throws(drain, /of the program/);
    assert.deepEqual(
      ring.read().map((seen) => seen.id),
      [1, 2],
    );
  });

  it('reads nothing that is published after the last look', () => {
    const ring = new Ring();
    ring.write(8, 0, 0, 1);
    ring.producer.publish();
    ring.consumer.freeze();
    ring.write(8, 0, 0, 2);
    ring.producer.publish();
    assert.ok(ring.consumer.available());
    assert.equal(ring.read().length, 1);
    assert.equal(ring.consumer.available(), false);
    assert.equal(ring.read().length, 0);
  });

  it('sees that the peer is closing, and its last record', () => {
    const ring = new Ring();
    assert.equal(ring.consumer.peerClosing(), false);
    const other = new Ring();
    other.consumer.markClosing(STATE_CLOSING);
    ring.words.set(other.peerWords.subarray(0, RING_OFFSET / 4));
    assert.ok(ring.consumer.peerClosing());
  });
});
