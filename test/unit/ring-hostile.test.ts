// Goal: whatever the other side writes into its own outbox, this side throws
// ERR_UKSHM_PEER_MISBEHAVED and believes nothing of it.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { UkshmError } from '../../src/core/errors.js';
import {
  DESCRIPTOR_BYTES,
  HEAD_INDEX,
  RING_OFFSET,
  TAIL_INDEX,
  TYPE_DESCRIPTOR,
  TYPE_PADDING,
} from '../../src/memory/outbox-layout.js';
import { advance, Ring, throwsCode } from './rings.js';

const CAPACITY = 4096;
/** Cursors are tried at the beginning, in the middle and around the wrap. */
const STARTS = [0, 2048, -CAPACITY, -8, 0x7ffffff8];

function misbehaves(action: () => unknown, message: RegExp): void {
  throwsCode('ERR_UKSHM_PEER_MISBEHAVED', action, message);
}

describe('a tail that cannot be true', () => {
  const tails: readonly [string, (start: number) => number][] = [
    ['goes back', (start) => start - 8],
    ['goes back by a whole ring', (start) => start - CAPACITY],
    ['is beyond one ring', (start) => start + CAPACITY + 8],
    ['is as far as can be', (start) => start + 0x7ffffff8],
    ['is not a multiple of 8', (start) => start + 12],
    ['is odd', (start) => start + 1],
  ];
  for (const [name, tailOf] of tails) {
    it(`${name}: refused by every look`, () => {
      for (const start of STARTS) {
        const looks = [
          (ring: Ring) => ring.read(),
          (ring: Ring) => ring.consumer.available(),
          (ring: Ring) => ring.consumer.spin(10, () => 0),
          (ring: Ring) => ring.consumer.freeze(),
        ];
        for (const look of looks) {
          const ring = new Ring({ start });
          ring.words[TAIL_INDEX] = tailOf(start);
          misbehaves(() => look(ring), /its tail/);
        }
      }
    });
  }

  it('overruns what is held here: refused though it is within one ring of what was read', () => {
    const ring = new Ring();
    ring.write(248);
    ring.producer.publish();
    const [held] = ring.read(1, () => true);
    ring.words[TAIL_INDEX] = CAPACITY + 8;
    misbehaves(() => ring.read(), /its tail/);
    ring.words[TAIL_INDEX] = CAPACITY;
    assert.ok(ring.consumer.available(), 'up to the held record it is the right of the producer');
    ring.release(held);
  });

  it('goes back after it was believed', () => {
    const ring = new Ring();
    ring.write(8);
    ring.write(8);
    ring.producer.publish();
    assert.equal(ring.read().length, 2);
    ring.words[TAIL_INDEX] = 16;
    misbehaves(() => ring.read(), /its tail/);
  });

  it('may be a full ring ahead, and no more', () => {
    for (const start of STARTS) {
      const ring = new Ring({ start });
      ring.words[TAIL_INDEX] = start + CAPACITY;
      assert.ok(ring.consumer.available());
    }
  });
});

describe('a head that cannot be true', () => {
  const heads: readonly [string, (start: number, tail: number) => number][] = [
    ['goes back', (start) => start - 8],
    ['is before its time', (_, tail) => tail + 8],
    ['is a whole ring ahead', (start) => start + CAPACITY],
    ['is not a multiple of 8', (start) => start + 4],
  ];
  for (const [name, headOf] of heads) {
    it(`${name}: refused whoever reads it`, () => {
      for (const start of STARTS) {
        const reads = [
          (ring: Ring) => ring.producer.drained(),
          (ring: Ring) => {
            while (ring.write(248));
          },
          (ring: Ring) => {
            while (ring.producer.tryPromise());
          },
        ];
        for (const read of reads) {
          const ring = new Ring({ start });
          ring.write(248);
          ring.producer.publish();
          ring.peerWords[HEAD_INDEX] = headOf(start, ring.words[TAIL_INDEX]);
          misbehaves(() => read(ring), /its head/);
        }
      }
    });
  }

  it('releases what was never published', () => {
    const ring = new Ring();
    ring.write(248);
    ring.peerWords[HEAD_INDEX] = 256;
    misbehaves(() => ring.producer.drained(), /its head/);
  });
});

describe('a record that cannot be true', () => {
  /** A ring whose peer forged one header at the cursor and published `bytes` from there. */
  function forged(start: number, bytes: number, type: number, length: number): Ring {
    const ring = new Ring({ start });
    ring.forge(start, type, length);
    ring.words[TAIL_INDEX] = start + bytes;
    return ring;
  }

  it('is longer than what was published', () => {
    for (const start of STARTS) {
      misbehaves(() => forged(start, 16, 0, 9).read(), /the record at/);
      misbehaves(() => forged(start, 8, 0, 1).read(), /the record at/);
      misbehaves(() => forged(start, CAPACITY, 7, 0xffff).read(), /the record at/);
    }
    assert.equal(forged(0, 16, 0, 8).read().length, 1);
  });

  it('reaches over the end of the ring', () => {
    for (const rest of [8, 64, 2048]) {
      misbehaves(() => forged(-rest, CAPACITY, 0, rest).read(), /the record at/);
    }
  });

  it('is padding without length, beyond the tail, or beyond the end', () => {
    misbehaves(() => forged(0, 64, TYPE_PADDING, 0).read(), /the record at/);
    misbehaves(() => forged(0, 64, TYPE_PADDING, 9).read(), /the record at/);
    misbehaves(() => forged(-64, 128, TYPE_PADDING, 9).read(), /the record at/);
    misbehaves(() => forged(0, CAPACITY, TYPE_PADDING, 0xffff).read(), /the record at/);
    assert.deepEqual(forged(0, 64, TYPE_PADDING, 8).read(), []);
  });

  it('is a descriptor of a wrong length', () => {
    for (const length of [0, DESCRIPTOR_BYTES - 1, DESCRIPTOR_BYTES + 1, 4088]) {
      const ring = forged(0, CAPACITY, TYPE_DESCRIPTOR, length);
      misbehaves(() => ring.read(), /the record at/);
    }
    misbehaves(() => forged(0, 24, TYPE_DESCRIPTOR, DESCRIPTOR_BYTES).read(), /the record at/);
    assert.equal(forged(0, 32, TYPE_DESCRIPTOR, DESCRIPTOR_BYTES).read().length, 1);
  });

  it('is as long as the ring: that is no lie, and all of it is held', () => {
    const ring = forged(0, CAPACITY, 0, CAPACITY - 8);
    const [held] = ring.read(1, () => true);
    assert.equal(held.lengthBytes, CAPACITY - 8);
    assert.equal(ring.consumer.publishHead(), false);
    ring.release(held);
    assert.equal(ring.consumer.publishHead(), true);
    assert.equal(ring.peerWords[HEAD_INDEX], CAPACITY);
  });

  it('comes behind good ones: those are delivered, and the lie is told each time', () => {
    const ring = new Ring();
    advance(ring, 512);
    ring.write(8, 0, 0, 1);
    ring.write(8, 0, 0, 2);
    ring.producer.publish();
    ring.forge(512 + 32, 0, 4000);
    ring.words[TAIL_INDEX] = 512 + 48;
    const ids: number[] = [];
    const visitor = {
      onInline: (): boolean => ids.push(ring.cursor.id) > 0,
      onDescriptor: () => true,
    };
    const drain = (): number => ring.consumer.drain(ring.cursor, visitor, 100, () => 0);
    misbehaves(drain, /the record at 544 \(type 0, length 4000\)/);
    assert.deepEqual(ids, [1, 2]);
    misbehaves(drain, /the record at 544/);
  });
});

describe('an outbox of noise', () => {
  it('never leads outside the ring, and never into an endless drain', () => {
    const noise = fc.record({
      start: fc.constantFrom(...STARTS),
      tail: fc.integer({ min: 0, max: CAPACITY / 8 }).map((units) => units * 8),
      headers: fc.array(
        fc.tuple(
          fc.integer({ min: 0, max: CAPACITY / 8 - 1 }),
          fc.oneof(fc.constantFrom(TYPE_PADDING, TYPE_DESCRIPTOR), fc.nat(0xffff)),
          fc.oneof(fc.nat(64), fc.nat(0xffff)),
        ),
        { maxLength: 60 },
      ),
    });
    const property = fc.property(noise, ({ start, tail, headers }) => {
      const ring = new Ring({ start });
      for (const [unit, type, length] of headers) ring.forge(unit * 8, type, length);
      ring.words[TAIL_INDEX] = start + tail;
      try {
        for (const { offset, lengthBytes } of ring.read()) {
          assert.ok(offset >= RING_OFFSET + 8 && offset + lengthBytes <= RING_OFFSET + CAPACITY);
        }
      } catch (error) {
        assert.ok(error instanceof UkshmError && error.code === 'ERR_UKSHM_PEER_MISBEHAVED');
      }
    });
    fc.assert(property, { numRuns: 1000 });
  });
});
