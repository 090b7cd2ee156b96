// Goal: whoever sleeps is woken, and rung once only.
// Method: one side's two shared accesses (publish, then look at the sleep word) and the other's two
// (announce, then look at the cursor) are run in all six orders. A hook on Atomics runs the other
// side between two accesses of one call: right behind its store.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ASLEEP_FOR_RECORDS_INDEX,
  ASLEEP_FOR_SPACE_INDEX,
  HEAD_INDEX,
  TAIL_INDEX,
} from '../../src/memory/outbox-layout.js';
import { Ring, type RingOptions } from './rings.js';

/** All orders of two steps of A (0, 1) and two of B (2, 3) that keep each side's own order. */
const ORDERS = ['0123', '0213', '0231', '2013', '2031', '2301'].map((order) =>
  [...order].map(Number),
);

/** Runs `between` once, right behind the next atomic store to `words[index]`. */
function behindStore(
  words: Int32Array,
  index: number,
  between: () => void,
  action: () => boolean,
): boolean {
  const store = Atomics.store as (array: Int32Array, index: number, value: number) => number;
  let done = false;
  const hooked = (array: Int32Array, at: number, value: number): number => {
    const stored = store(array, at, value);
    if (!done && array === words && at === index) {
      done = true;
      between();
    }
    return stored;
  };
  Atomics.store = hooked as typeof Atomics.store;
  try {
    const result = action();
    assert.ok(done, 'the word was written');
    return result;
  } finally {
    Atomics.store = store as typeof Atomics.store;
  }
}

/**
 * Runs A's one call, whose first access writes `words[index]`, and B's two steps in an order.
 * @returns what A's call answers.
 */
function inOrder(
  order: readonly number[],
  words: Int32Array,
  index: number,
  a: () => boolean,
  b: readonly (() => void)[],
): boolean {
  const steps = (from: number, to: number): void => {
    for (const step of order.slice(from, to)) if (step >= 2) b[step - 2]();
  };
  const first = order.indexOf(0);
  const second = order.indexOf(1);
  steps(0, first);
  const result = behindStore(words, index, () => steps(first, second), a);
  steps(second, order.length);
  return result;
}

/** A ring with one record committed. */
function ringWithRecord(options?: RingOptions): Ring {
  const ring = new Ring(options);
  assert.ok(ring.write(8));
  return ring;
}

describe('sleep for records', () => {
  for (const order of ORDERS) {
    it(`loses no record in the order ${order.join(' ')}`, () => {
      const ring = ringWithRecord();
      let found = false;
      const rung = inOrder(order, ring.words, TAIL_INDEX, () => ring.producer.publish(), [
        () => ring.consumer.announceSleep(),
        () => {
          found = ring.consumer.available();
        },
      ]);
      assert.ok(found || rung);
      const announced = order.indexOf(2) < order.indexOf(1);
      assert.equal(rung, announced);
    });
  }

  it('is rung once for each sleep, and not while awake', () => {
    const ring = ringWithRecord();
    assert.equal(ring.producer.publish(), false, 'it never slept');
    for (let round = 0; round < 3; round++) {
      ring.consumer.announceSleep();
      const rings = [0, 1, 2].map(() => {
        ring.write(8);
        return ring.producer.publish();
      });
      assert.deepEqual(rings, [true, false, false]);
      ring.consumer.awake();
      ring.write(8);
      assert.equal(ring.producer.publish(), false);
    }
  });

  it('is a new sleep at each announcement, with or without waking between', () => {
    const ring = new Ring();
    for (let round = 0; round < 3; round++) {
      ring.consumer.announceSleep();
      ring.write(8);
      assert.equal(ring.producer.publish(), true);
    }
    ring.consumer.awake();
    ring.consumer.awake();
    assert.equal(ring.peerWords[ASLEEP_FOR_RECORDS_INDEX] & 1, 0);
  });

  it('is no reason to ring when nothing is published', () => {
    const ring = new Ring();
    ring.consumer.announceSleep();
    assert.equal(ring.producer.publish(), false);
    ring.write(8);
    assert.equal(ring.producer.publish(), true);
    assert.equal(ring.producer.publish(), false);
  });

  it('is ended by a batch that padding has taken along', () => {
    // Padding is published at once and rings nobody; what it made visible still must ring.
    const ring = new Ring({ start: -64 });
    ring.consumer.announceSleep();
    assert.ok(ring.write(40));
    assert.ok(ring.producer.tryReserve(100) > 0);
    assert.equal(ring.words[TAIL_INDEX], 0, 'the padding is out, and the record with it');
    assert.equal(ring.producer.publish(), true);
    assert.equal(ring.producer.publish(), false);
  });

  it('is ended by a batch behind padding', () => {
    const ring = new Ring({ start: -16 });
    ring.consumer.announceSleep();
    assert.ok(ring.write(100));
    assert.equal(ring.producer.publish(), true);
  });

  it('rings at every publish a peer that cannot fence', () => {
    const ring = ringWithRecord({ alwaysRing: true });
    assert.equal(ring.producer.publish(), true);
    ring.write(8);
    assert.equal(ring.producer.publish(), true);
    assert.equal(ring.producer.publish(), false);
  });

  it('survives a peer whose sleep word is noise', () => {
    const ring = new Ring();
    const rings = [1, 1, -1, 2, 0x7fffffff, -2].map((word) => {
      ring.peerWords[ASLEEP_FOR_RECORDS_INDEX] = word;
      ring.write(8);
      return ring.producer.publish();
    });
    assert.deepEqual(rings, [true, false, true, false, true, false]);
  });
});

describe('sleep for space', () => {
  /** What a receiver does after a release. */
  function giveBack(ring: Ring): boolean {
    return ring.consumer.publishHead() && ring.consumer.mustRing();
  }

  for (const order of ORDERS) {
    it(`loses no space in the order ${order.join(' ')}`, () => {
      const ring = new Ring();
      while (ring.write(248));
      ring.producer.publish();
      // One record read: the head stays back, because a quarter is more.
      ring.read(1);
      let found = false;
      const rung = inOrder(order, ring.peerWords, HEAD_INDEX, () => giveBack(ring), [
        () => ring.producer.announceSleep(),
        () => {
          found = ring.write(248);
        },
      ]);
      assert.ok(found || rung);
      assert.equal(rung, order.indexOf(2) < order.indexOf(1));
    });
  }

  it('is rung once for each sleep, and not while awake', () => {
    const ring = new Ring();
    while (ring.write(56));
    ring.producer.publish();
    const release = (): boolean => ring.read(1).length === 1 && giveBack(ring);
    assert.equal(release(), false, 'it never slept');
    for (let round = 0; round < 3; round++) {
      ring.producer.announceSleep();
      assert.deepEqual([release(), release()], [true, false]);
      ring.producer.awake();
      assert.equal(release(), false);
    }
  });

  it('is a new sleep at each announcement, with or without waking between', () => {
    const ring = new Ring();
    while (ring.write(56));
    ring.producer.publish();
    for (let round = 0; round < 3; round++) {
      ring.producer.announceSleep();
      ring.read(1);
      assert.equal(giveBack(ring), true);
    }
    ring.producer.awake();
    ring.producer.awake();
    assert.equal(ring.words[ASLEEP_FOR_SPACE_INDEX] & 1, 0);
  });

  it('is ended by a drain that has moved the head by itself, at a quarter of the ring', () => {
    // The drain publishes the head in its midst, exactly at its last record; then nothing is left
    // to publish, but the sleeper must still be rung.
    const ring = new Ring();
    while (ring.write(248));
    ring.producer.publish();
    ring.producer.announceSleep();
    assert.equal(ring.write(248), false);
    assert.equal(ring.read(4).length, 4);
    assert.equal(giveBack(ring), true);
    assert.equal(giveBack(ring), false);
  });

  it('rings at every release a peer that cannot fence', () => {
    const ring = new Ring({ alwaysRing: true });
    while (ring.write(248));
    ring.producer.publish();
    for (let i = 0; i < 3; i++) {
      ring.read(1);
      assert.equal(giveBack(ring), true);
    }
    assert.equal(giveBack(ring), false);
  });
});
