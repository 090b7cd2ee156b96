// Goal: a ring behaves like a plain queue with exactly its capacity, whatever is done in which order.
// Method: fast-check runs random commands on both, cursors beginning just below 2^32 (they then wrap
// within every run) or anywhere. The model counts positions in plain numbers and never wraps.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DESCRIPTOR_BYTES, TYPE_DESCRIPTOR } from '../../src/memory/outbox-layout.js';
import { Ring, recordBytes, type Seen } from './rings.js';

const CAPACITY = 4096;
const INLINE_MAX = CAPACITY / 8;
const PROMISE_BYTES = 64;

interface Entry {
  readonly kind: 'inline' | 'descriptor';
  readonly start: number;
  readonly lengthBytes: number;
  readonly id: number;
  seen?: Seen;
}

/** The queue, in positions that only grow. */
class Model {
  tail: number;
  head: number;
  published: number;
  position: number;
  promises = 0;
  /** Written and not yet read. */
  readonly queue: Entry[] = [];
  /** Read and held. */
  readonly held: Entry[] = [];

  constructor(start: number) {
    this.tail = this.head = this.published = this.position = start;
  }

  get free(): number {
    return CAPACITY - (this.tail - this.head) - this.promises * PROMISE_BYTES;
  }

  /** Whether a record fits; pads as the ring is said to. */
  reserve(lengthBytes: number): boolean {
    const size = recordBytes(lengthBytes);
    const rest = CAPACITY - (this.tail % CAPACITY);
    const padding = size > rest ? rest : 0;
    const fits = padding + size <= this.free;
    if (padding > 0 && padding <= this.free) this.tail = this.published = this.tail + padding;
    return fits;
  }

  commit(kind: Entry['kind'], lengthBytes: number, id: number): void {
    this.queue.push({ kind, start: this.tail, lengthBytes, id });
    this.tail += recordBytes(lengthBytes);
  }

  /** What a drain of `limit` reads: as much as was published when it looked. */
  read(limit: number, looked: number): Entry[] {
    const count = this.queue.findIndex((entry) => entry.start >= looked);
    const read = this.queue.splice(0, Math.min(limit, count < 0 ? this.queue.length : count));
    const next = this.queue[0];
    // Padding behind the last record read is passed as well: it is no record that one could wait for.
    this.position = next === undefined || next.start >= looked ? looked : next.start;
    return read;
  }

  publishHead(): void {
    this.head = Math.min(this.position, ...this.held.map((entry) => entry.start));
  }
}

interface Both {
  readonly ring: Ring;
  readonly model: Model;
  /** What the consumer knows of: it looks again only when all of that is read. */
  looked: number;
  ids: number;
}

type Command = (both: Both) => void;

function payloadOf(entry: Entry): Uint8Array {
  return new Uint8Array(entry.lengthBytes).map((_, i) => entry.id * 31 + i);
}

function write(lengthBytes: number): Command {
  return ({ ring, model, ids: id }) => {
    const entry: Entry = { kind: 'inline', start: 0, lengthBytes, id };
    const done = ring.producer.tryWrite(payloadOf(entry), id % 1000, id);
    assert.equal(done, model.reserve(lengthBytes));
    if (done) model.commit('inline', lengthBytes, id);
  };
}

function giveUp(lengthBytes: number): Command {
  return ({ ring, model }) => {
    assert.equal(ring.producer.tryReserve(lengthBytes) >= 0, model.reserve(lengthBytes));
  };
}

const promise: Command = ({ ring, model }) => {
  const fits = model.free >= PROMISE_BYTES;
  assert.equal(ring.producer.tryPromise(), fits);
  if (fits) model.promises++;
};

const breakPromise: Command = ({ ring, model }) => {
  if (model.promises === 0) return;
  model.promises--;
  ring.producer.takePromise();
};

const keepPromise: Command = ({ ring, model, ids }) => {
  if (model.promises === 0) return;
  model.promises--;
  ring.producer.takePromise();
  assert.ok(model.reserve(DESCRIPTOR_BYTES), 'the model: a promise is always kept');
  assert.ok(ring.producer.tryReserve(DESCRIPTOR_BYTES) > 0);
  ring.producer.commit(DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, ids);
  model.commit('descriptor', DESCRIPTOR_BYTES, ids);
};

const publish: Command = ({ ring, model }) => {
  ring.producer.publish();
  model.published = model.tail;
};

/** A drain may move the head by itself: in the model too it has moved when the drain is over. */
function read(limit: number, hold: number): Command {
  return (both) => {
    const { ring, model } = both;
    if (model.position === both.looked) both.looked = model.published;
    const seen = ring.read(limit, (index) => ((hold >> (index & 7)) & 1) === 1);
    const expected = model.read(limit, both.looked);
    assert.equal(seen.length, expected.length);
    for (const [i, entry] of expected.entries()) {
      assert.equal(seen[i].kind, entry.kind);
      assert.equal(seen[i].id, entry.id);
      if (entry.kind === 'inline') checkPayload(ring, entry, seen[i]);
      if (seen[i].held !== undefined) model.held.push({ ...entry, seen: seen[i] });
    }
    assert.equal(ring.consumer.heldCount, model.held.length);
    publishHead(both);
  };
}

function checkPayload(ring: Ring, entry: Entry, seen: Seen): void {
  assert.equal(seen.lengthBytes, entry.lengthBytes);
  assert.deepEqual(ring.payload(seen), payloadOf(entry));
}

function release(which: number): Command {
  return ({ ring, model }) => {
    const [entry] = model.held.splice(which % Math.max(1, model.held.length), 1);
    if (entry?.seen === undefined) return;
    checkPayload(ring, entry, entry.seen);
    ring.release(entry.seen);
  };
}

const publishHead: Command = ({ ring, model }) => {
  ring.consumer.publishHead();
  model.publishHead();
};

const lengths = fc.oneof(fc.nat(64), fc.nat(INLINE_MAX), fc.constantFrom(0, INLINE_MAX));
const named = (name: string, command: Command): readonly [string, Command] => [name, command];
const commands = fc.oneof(
  { weight: 8, arbitrary: lengths.map((n) => named(`write ${n}`, write(n))) },
  { weight: 1, arbitrary: lengths.map((n) => named(`give up ${n}`, giveUp(n))) },
  { weight: 2, arbitrary: fc.constant(named('promise', promise)) },
  { weight: 1, arbitrary: fc.constant(named('break', breakPromise)) },
  { weight: 1, arbitrary: fc.constant(named('keep', keepPromise)) },
  { weight: 3, arbitrary: fc.constant(named('publish', publish)) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.nat(30), fc.oneof(fc.constant(0), fc.nat(255)))
      .map(([limit, hold]) => named(`read ${limit} ${hold}`, read(limit, hold))),
  },
  { weight: 4, arbitrary: fc.nat(50).map((i) => named(`release ${i}`, release(i))) },
  { weight: 3, arbitrary: fc.constant(named('publish head', publishHead)) },
);
const starts = fc.oneof(
  fc.nat(CAPACITY / 8 - 1).map((units) => 2 ** 32 - 8 * (units + 1)),
  fc.nat(2 ** 29 - 1).map((units) => units * 8),
);

describe('a record ring against a plain queue', () => {
  it('agrees with it in every order of commands', () => {
    const property = fc.property(
      starts,
      fc.array(commands, { maxLength: 200, size: 'max' }),
      (start, script) => {
        const ring = new Ring({ start });
        const both: Both = { ring, model: new Model(start), looked: start, ids: 0 };
        for (const [, command] of script) {
          command(both);
          both.ids++;
        }
        finish(both);
      },
    );
    fc.assert(property, { numRuns: 500 });
  });
});

/** At the end everything comes out, and the ring is whole again. */
function finish(both: Both): void {
  const { ring, model } = both;
  while (model.promises > 0) breakPromise(both);
  publish(both);
  read(1000, 0)(both);
  read(1000, 0)(both);
  while (model.held.length > 0) release(0)(both);
  publishHead(both);
  assert.ok(ring.producer.drained());
  assert.equal(model.queue.length, 0);
  assert.equal(ring.producer.usedBytes, 0);
}
