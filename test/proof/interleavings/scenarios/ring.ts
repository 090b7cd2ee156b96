// One record ring, whose producer and consumer sleep by the protocol that FORMAT.md describes.
import assert from 'node:assert/strict';
import {
  ASLEEP_FOR_RECORDS_INDEX,
  ASLEEP_FOR_SPACE_INDEX,
  HEAD_INDEX,
  type OutboxLayout,
  outboxLayout,
  RING_OFFSET,
  STATE_CLOSING,
  TAIL_INDEX,
} from '../../../../src/memory/outbox-layout.js';
import { RecordConsumer, RecordCursor } from '../../../../src/ring/consumer.js';
import { RecordProducer } from '../../../../src/ring/producer.js';
import { nowMs } from '../../../../src/sys/clock.js';
import { Bell, type Scenario } from '../explore/scenario.js';
import type { World } from '../explore/world.js';

export interface RingCase {
  readonly name: string;
  readonly ringBytes: number;
  /** Payload lengths of the messages. */
  readonly lengths: readonly number[];
  /** Where the cursors begin. */
  readonly start: number;
  /** Who may die at each of its steps. */
  readonly mortal?: 'producer' | 'consumer';
}

interface Producing {
  readonly producer: RecordProducer;
  /** Of the other direction: by it this side says that it closes. */
  readonly reverse: RecordConsumer;
}

/** A payload that no other message has: byte i of message n. */
function payload(n: number, lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (n + 1) * 16 + i);
}

/** Writes all, then says that it closes. Ends early where nobody reads any more. */
function produce(side: Producing, lengths: readonly number[], own: Bell, peer: Bell): void {
  const { producer } = side;
  for (const [n, lengthBytes] of lengths.entries()) {
    const bytes = payload(n, lengthBytes);
    while (!producer.tryWrite(bytes, n, n)) {
      producer.announceSleep();
      const fits = producer.tryWrite(bytes, n, n);
      const goesOn = fits || own.wait();
      producer.awake();
      if (!goesOn) return;
      if (fits) break;
    }
    if (producer.publish()) peer.ring();
  }
  side.reverse.markClosing(STATE_CLOSING);
  peer.ring();
}

/** Reads until the other side has closed or died, and all that it published was read. */
function consume(
  consumer: RecordConsumer,
  cursor: RecordCursor,
  own: Bell,
  peer: Bell,
  seen: Uint8Array[],
): void {
  const visitor = {
    onInline: (): boolean => {
      const { offset, lengthBytes, memory, id } = cursor;
      assert.equal(id, seen.length, 'order');
      seen.push(memory.slice(offset, offset + lengthBytes));
      return true;
    },
    onDescriptor: (): boolean => assert.fail('no descriptor was sent'),
  };
  let isOver = false;
  for (;;) {
    const count = consumer.drain(cursor, visitor, 16, nowMs);
    if (consumer.publishHead() && consumer.mustRing()) peer.ring();
    if (count > 0) continue;
    if (isOver) return;
    // The last tail comes before the state: look once more.
    isOver = consumer.peerClosing();
    if (isOver) continue;
    consumer.announceSleep();
    if (!consumer.available() && !consumer.peerClosing()) isOver = !own.wait();
    consumer.awake();
  }
}

/** Sleeps that a word tells of: it is odd while its side sleeps. */
function sleeps(words: Int32Array, index: number): number {
  return ((words[index] as number) + 1) >> 1;
}

export function ringScenario({ name, ringBytes, lengths, start, mortal }: RingCase): Scenario {
  const layout: OutboxLayout = {
    ...outboxLayout(ringBytes, 0),
    totalBytes: RING_OFFSET + ringBytes,
  };
  return {
    name,
    small: true,
    setUp: (world: World) => {
      const out = world.memory('producer', layout.totalBytes);
      const back = world.memory('consumer', layout.totalBytes);
      const words = new Int32Array(out.buffer);
      const bytes = new Uint8Array(out.buffer);
      const peerWords = new Int32Array(back.buffer);
      words[TAIL_INDEX] = start;
      peerWords[HEAD_INDEX] = start;
      const producer = new RecordProducer(words, bytes, peerWords, layout, false, start);
      const consumer = new RecordConsumer(peerWords, words, layout, false, start);
      const reverse = new RecordConsumer(words, peerWords, layout, false);
      const cursor = new RecordCursor(bytes, new BigInt64Array(out.buffer));
      const seen: Uint8Array[] = [];
      const writer = world.party('producer', () => {
        produce({ producer, reverse }, lengths, space, records);
      });
      const reader = world.party('consumer', () => consume(consumer, cursor, records, space, seen));
      const [space, records] = [new Bell(writer, reader), new Bell(reader, writer)];
      if (mortal !== undefined) world.mayDie(mortal === 'producer' ? writer : reader);
      return () => {
        const sent = lengths.map((lengthBytes, n) => payload(n, lengthBytes));
        const read = mortal === undefined ? sent : sent.slice(0, seen.length);
        assert.deepEqual(seen, read, 'all messages, once, in order, whole');
        // The last one says that no more will come.
        const rings = records.rings - 1;
        assert.ok(
          rings <= sleeps(peerWords, ASLEEP_FOR_RECORDS_INDEX),
          'at most one ring per sleep',
        );
        assert.ok(
          space.rings <= sleeps(words, ASLEEP_FOR_SPACE_INDEX),
          'at most one ring per sleep',
        );
      };
    },
  };
}

/** Two slots of 16 bytes, three messages; the cursors pass 2^32. */
export const twoSlots: Scenario = ringScenario({
  name: 'ring of two slots',
  ringBytes: 32,
  lengths: [8, 8, 8],
  start: -16,
});

/** Records of 8, 16 and 16 bytes in 32: the third is preceded by padding. */
export const padded: Scenario = ringScenario({
  name: 'ring with padding',
  ringBytes: 32,
  lengths: [0, 8, 8],
  start: 0,
});

/** The cursors pass 2^31, where they become negative. */
export const signed: Scenario = ringScenario({
  name: 'ring whose cursors pass 2^31',
  ringBytes: 32,
  lengths: [8, 8, 8],
  start: 2 ** 31 - 16,
});

const mortals = (['producer', 'consumer'] as const).map((mortal) =>
  ringScenario({
    name: `ring, the ${mortal} dies`,
    ringBytes: 32,
    lengths: [8, 8, 8],
    start: 0,
    mortal,
  }),
);

export const scenarios: readonly Scenario[] = [twoSlots, padded, signed, ...mortals];
