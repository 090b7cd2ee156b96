// A topic's publisher and two subscribers: each message is written once, lent to both, and its memory
// used again after the last release. One subscriber may be slow, or die.
import assert from 'node:assert/strict';
import { Origin } from '../../../../src/channel/forward.js';
import type { SharedRegion } from '../../../../src/channel/meeting/shared-region.js';
import { outboxLayout } from '../../../../src/memory/outbox-layout.js';
import { Outlet } from '../../../../src/patterns/topic/outlet.js';
import type { Parcel } from '../../../../src/patterns/topic/queue.js';
import { TopicRegion } from '../../../../src/patterns/topic/region.js';
import { Subscription } from '../../../../src/patterns/topic/subscription.js';
import { outboxWord } from '../explore/memory.js';
import type { Party } from '../explore/party.js';
import { map, type Scenario } from '../explore/scenario.js';
import { Pair, payload } from './pair.js';

const NOTHING = new Uint8Array(0);
const BYTES = 40;
const REGION = outboxLayout(64, 8192);

/** @param depth - messages that a subscriber may hold; more than that wait, or are lost and counted. */
function topicScenario(name: string, messages: number, depth: number, mortal: boolean): Scenario {
  return {
    name,
    setUp: (world) => {
      const memory = world.memory('topic', REGION.totalBytes, (offset) =>
        outboxWord(offset, REGION),
      );
      const heard = [0, 0];
      const missed = [0, 0];
      const publisher = world.party('publisher', async () => {
        const origin = new Origin(new Uint8Array(4), 0, new Uint8Array(8));
        const shared = { mapping: map(memory), layout: REGION, origin } as unknown as SharedRegion;
        const region = new TopicRegion(shared);
        let resume = (): void => {};
        const onReleased = (): void => resume();
        const outlets = pairs.map((pair) => {
          const onSleeper = (outlet: Outlet): void => outlet.ring();
          const events = { onReleased, onSleeper };
          return new Outlet(pair.openLeft(), { slow: 'drop-oldest', depth }, events);
        });
        for (const outlet of outlets) {
          outlet.channel.closed.then(() => outlet.end());
          // One that dies before it has mapped the memory is none of the others' business.
          await outlet.enter(region).catch(() => {});
        }
        let sequence = 0;
        while (sequence < messages) {
          const chunk = region.tryChunk(BYTES);
          if (chunk === undefined) {
            await new Promise<void>((resolve) => {
              resume = resolve;
              for (const outlet of outlets) outlet.watch();
            });
            continue;
          }
          region.write(chunk, payload(sequence, BYTES));
          for (const outlet of outlets) {
            const parcel: Parcel = { sequence, bytes: NOTHING, chunk };
            if (!outlet.lend(chunk, sequence)) outlet.late(parcel);
          }
          chunk.drop();
          sequence++;
        }
        for (const outlet of outlets) await outlet.finish({ sequence });
      });
      const subscribe = (index: number): Party =>
        world.party(`subscriber ${index}`, async () => {
          const pair = pairs[index] as Pair;
          const channel = pair.openRight({ mapRegion: async () => map(memory) });
          const subscription = new Subscription(channel, 0, 0);
          for await (const message of subscription) {
            assert.deepEqual(message.copy(), payload(message.sequence, BYTES), 'whole');
            message.release();
            heard[index] = (heard[index] as number) + 1;
          }
          missed[index] = subscription.stats().missed;
          await subscription.close();
        });
      const subscribers = [subscribe(0), subscribe(1)];
      const pairs = subscribers.map(
        (party) => new Pair(world, publisher, party, { ringBytes: 1024 }),
      );
      if (mortal) world.mayDie(subscribers[1] as Party);
      return () => {
        for (const [i, party] of subscribers.entries()) {
          if (party.dead) continue;
          const known = (heard[i] as number) + (missed[i] as number);
          assert.equal(known, messages, 'each message was read, or counted as missed');
        }
      };
    },
  };
}

export const scenarios: readonly Scenario[] = [
  topicScenario('topic, two subscribers', 3, 4, false),
  topicScenario('topic, messages are lost', 3, 1, false),
  topicScenario('topic, one dies', 3, 4, true),
];
