// A channel between two parties: both may sleep, and it is closed by either, or by a death.
import assert from 'node:assert/strict';
import type { Channel } from '../../../../src/channel/channel.js';
import { UkshmError } from '../../../../src/core/errors.js';
import {
  ASLEEP_FOR_RECORDS_INDEX,
  ASLEEP_FOR_SPACE_INDEX,
} from '../../../../src/memory/outbox-layout.js';
import type { Memory } from '../explore/memory.js';
import type { Scenario } from '../explore/scenario.js';
import { Pair, type PairOptions, payload } from './pair.js';

export interface ChannelCase extends PairOptions {
  readonly name: string;
  /** Payload lengths of the messages. */
  readonly lengths: readonly number[];
  /** Who may die at each of its steps. */
  readonly mortal?: 'sender' | 'receiver';
  /** The receiver holds each message until the next one has come. */
  readonly holds?: boolean;
}

/** Announcements that a side made, of both kinds. */
function sleeps(memory: Memory): number {
  const words = new Int32Array(memory.buffer);
  const count = (index: number): number => ((words[index] as number) + 1) >> 1;
  return count(ASLEEP_FOR_RECORDS_INDEX) + count(ASLEEP_FOR_SPACE_INDEX);
}

/** What an end is told when the other has died, or has closed because of that. */
function assertGone(error: unknown): void {
  assert.ok(error instanceof UkshmError, String(error));
  const codes = ['ERR_UKSHM_PEER_GONE', 'ERR_UKSHM_PEER_CLOSED'];
  assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
}

export function channelScenario(options: ChannelCase): Scenario {
  const { name, lengths, mortal, holds = false } = options;
  return {
    name,
    small: lengths.length < 2,
    setUp: (world) => {
      const seen: Uint8Array[] = [];
      let sent = 0;
      const rings = { sender: 0, receiver: 0 };
      const ended = { sender: '', receiver: '' };
      const sender = world.party('sender', async () => {
        const channel = pair.openLeft();
        try {
          for (const [n, lengthBytes] of lengths.entries()) {
            await channel.send(payload(n, lengthBytes));
            sent++;
          }
        } catch (error) {
          assertGone(error);
        }
        await end(channel, 'sender');
      });
      const receiver = world.party('receiver', async () => {
        const channel = pair.openRight();
        let held: { release(): void } | undefined;
        try {
          for await (const message of channel) {
            const bytes = message.copy();
            held?.release();
            held = undefined;
            if (holds) held = message;
            else message.release();
            assert.deepEqual(bytes, payload(seen.length, lengths[seen.length] as number));
            seen.push(bytes);
          }
        } catch (error) {
          assertGone(error);
        }
        held?.release();
        await end(channel, 'receiver');
      });
      const end = async (channel: Channel, who: 'sender' | 'receiver'): Promise<void> => {
        await channel.close();
        ended[who] = (await channel.closed).reason;
        rings[who] = channel.stats().ringsSent;
      };
      const pair = new Pair(world, sender, receiver, options);
      if (mortal !== undefined) world.mayDie(mortal === 'sender' ? sender : receiver);
      return () => {
        assert.ok(sent <= lengths.length && seen.length <= lengths.length);
        // What was sent is read, whether its sender lives or not.
        if (!receiver.dead) assert.ok(seen.length >= sent, `read ${seen.length} of ${sent}`);
        if (!sender.dead && !receiver.dead) {
          assert.equal(seen.length, lengths.length);
        }
        if (!sender.dead) assert.ok(rings.sender <= sleeps(pair.right), 'rings of the sender');
        if (!receiver.dead) assert.ok(rings.receiver <= sleeps(pair.left), 'rings of the receiver');
      };
    },
  };
}

/** Each message is awaited before the next one is sent: nobody but the reader can wake the sender. */
function echoScenario(count: number): Scenario {
  return {
    name: 'channel, echo',
    setUp: (world) => {
      let answered = 0;
      const asker = world.party('asker', async () => {
        const channel = pair.openLeft();
        for (let n = 0; n < count; n++) {
          await channel.send(payload(n, 8));
          assert.ok(await channel.readable());
          channel.drain((message) => {
            assert.deepEqual(new Uint8Array(message.bytes), payload(n + 8, 8));
            answered++;
          });
        }
        await channel.close();
      });
      const echo = world.party('echo', async () => {
        const channel = pair.openRight();
        let n = 0;
        for await (const message of channel) {
          assert.deepEqual(message.copy(), payload(n, 8));
          message.release();
          await channel.send(payload(n + 8, 8));
          n++;
        }
        await channel.close();
      });
      const pair = new Pair(world, asker, echo);
      return () => assert.equal(answered, count);
    },
  };
}

export const scenarios: readonly Scenario[] = [
  channelScenario({ name: 'channel, closed at once', lengths: [] }),
  channelScenario({
    name: 'channel, closed at once, or the sender dies',
    lengths: [],
    mortal: 'sender',
  }),
  channelScenario({ name: 'channel, one message', lengths: [8] }),
  channelScenario({ name: 'channel, three messages', lengths: [8, 8, 8] }),
  echoScenario(3),
  channelScenario({ name: 'channel, full and padded', lengths: [8, 8, 0, 8, 8, 8] }),
  channelScenario({ name: 'channel, messages held', lengths: [8, 8, 8, 8, 8], holds: true }),
  channelScenario({
    name: 'channel, chunks',
    lengths: [20, 20, 20],
    ringBytes: 128,
    arenaBytes: 8192,
  }),
  channelScenario({
    name: 'channel, chunks in turn',
    lengths: [20, 20, 20, 20, 20, 20],
    ringBytes: 128,
    arenaBytes: 8192,
    inFlightBytes: 4096,
  }),
  channelScenario({ name: 'channel, the sender dies', lengths: [8, 8], mortal: 'sender' }),
  channelScenario({
    name: 'channel, the receiver dies',
    lengths: [20, 20, 20],
    ringBytes: 128,
    arenaBytes: 8192,
    mortal: 'receiver',
  }),
];
