// Goal: a reader pauses for more only where that helps: once, behind few records, when it answers none.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import { nowMs } from '../../src/sys/clock.js';
import { Ring } from './rings.js';

describe('a pause in which more may gather', () => {
  const gathers = (ring: Ring): boolean => ring.consumer.gather(nowMs);
  const pass = (ring: Ring, count: number): void => {
    for (let i = 0; i < count; i++) ring.write(8);
    ring.producer.publish();
    assert.equal(ring.empty(), count);
  };

  it('is made once behind a short run of records', () => {
    const ring = new Ring();
    assert.equal(gathers(ring), false, 'nothing was read');
    pass(ring, 1);
    assert.deepEqual([gathers(ring), gathers(ring)], [true, false]);
    pass(ring, 30);
    pass(ring, 30);
    assert.ok(gathers(ring));
  });

  it('is not made behind a long run', () => {
    const ring = new Ring();
    pass(ring, 80);
    assert.equal(gathers(ring), false);
  });

  it('is not made while records wait', () => {
    const ring = new Ring();
    ring.write(8);
    ring.write(8);
    ring.producer.publish();
    ring.read(1);
    assert.equal(gathers(ring), false);
    ring.read(1);
    assert.ok(gathers(ring));
  });

  it('is not made by a side that has answered', () => {
    const ring = new Ring();
    pass(ring, 1);
    // The consumer's own tail, which its producer moves.
    ring.peerWords[TAIL_INDEX] = 16;
    assert.equal(gathers(ring), false);
  });
});
