// One record ring, whose producer and consumer sleep by the protocol that FORMAT.md describes.
import assert from 'node:assert/strict';
import {
  HEAD_INDEX,
  type OutboxLayout,
  outboxLayout,
  RING_OFFSET,
  TAIL_INDEX,
} from '../../../src/memory/outbox-layout.js';
import { RecordConsumer, RecordCursor } from '../../../src/ring/consumer.js';
import { RecordProducer } from '../../../src/ring/producer.js';
import { nowMs } from '../../../src/sys/clock.js';
import { Bell, type Scenario } from '../explore/scenario.js';
import type { World } from '../explore/world.js';

export interface RingCase {
  readonly name: string;
  readonly ringBytes: number;
  /** Payload lengths of the messages. */
  readonly lengths: readonly number[];
  /** Where the cursors begin. */
  readonly start: number;
}

/** A payload that no other message has: byte i of message n. */
function payload(n: number, lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (n + 1) * 16 + i);
}

function produce(
  producer: RecordProducer,
  lengths: readonly number[],
  own: Bell,
  peer: Bell,
): void {
  for (const [n, lengthBytes] of lengths.entries()) {
    const bytes = payload(n, lengthBytes);
    while (!producer.tryWrite(bytes, n, n)) {
      producer.announceSleep();
      const fits = producer.tryWrite(bytes, n, n);
      if (!fits) own.wait();
      producer.awake();
      if (fits) break;
    }
    if (producer.publish()) peer.ring();
  }
}

function consume(
  consumer: RecordConsumer,
  cursor: RecordCursor,
  count: number,
  own: Bell,
  peer: Bell,
): Uint8Array[] {
  const seen: Uint8Array[] = [];
  const visitor = {
    onInline: (): boolean => {
      const { offset, lengthBytes, memory, id } = cursor;
      assert.equal(id, seen.length, 'order');
      seen.push(memory.slice(offset, offset + lengthBytes));
      return true;
    },
    onDescriptor: (): boolean => assert.fail('no descriptor was sent'),
  };
  while (seen.length < count) {
    if (consumer.drain(cursor, visitor, 16, nowMs) === 0) {
      consumer.announceSleep();
      if (!consumer.available()) own.wait();
      consumer.awake();
    }
    if (consumer.publishHead() && consumer.mustRing()) peer.ring();
  }
  return seen;
}

/** Sleeps that a word tells of: it is odd while its side sleeps. */
function sleeps(words: Int32Array, index: number): number {
  return ((words[index] as number) + 1) >> 1;
}

export function ringScenario({ name, ringBytes, lengths, start }: RingCase): Scenario {
  const layout: OutboxLayout = {
    ...outboxLayout(ringBytes, 0),
    totalBytes: RING_OFFSET + ringBytes,
  };
  return {
    name,
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
      const cursor = new RecordCursor(bytes, new BigInt64Array(out.buffer));
      const [space, records] = [new Bell(0), new Bell(1)];
      let seen: Uint8Array[] = [];
      world.party('producer', () => produce(producer, lengths, space, records));
      world.party('consumer', () => {
        seen = consume(consumer, cursor, lengths.length, records, space);
      });
      return () => {
        const sent = lengths.map((lengthBytes, n) => payload(n, lengthBytes));
        assert.deepEqual(seen, sent, 'all messages, once, in order, whole');
        assert.ok(
          records.rings <= sleeps(peerWords, 128),
          'at most one ring per sleep for records',
        );
        assert.ok(space.rings <= sleeps(words, 160), 'at most one ring per sleep for space');
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

export const scenarios: readonly Scenario[] = [twoSlots, padded, signed];
