// Forwarding, origin → middle → target: the target reads in place what the origin sent to the middle,
// which may die at each of its steps.
import assert from 'node:assert/strict';
import { Origin } from '../../../../src/channel/forward.js';
import { UkshmError } from '../../../../src/core/errors.js';
import { map, type Scenario } from '../explore/scenario.js';
import { Pair, payload } from './pair.js';

const SIZES = { ringBytes: 256, arenaBytes: 8192, inFlightBytes: 8192 };
const GONE = ['ERR_UKSHM_PEER_GONE', 'ERR_UKSHM_PEER_CLOSED', 'ERR_UKSHM_CLOSED'];

async function unlessGone(action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof UkshmError) || !GONE.includes(error.code)) throw error;
  }
}

function forwardScenario(name: string, lengths: readonly number[], mortal: boolean): Scenario {
  return {
    name,
    setUp: (world) => {
      let read = 0;
      const origin = world.party('origin', async () => {
        const channel = first.openLeft();
        await unlessGone(async () => {
          for (const [n, lengthBytes] of lengths.entries()) {
            await channel.send(payload(n, lengthBytes));
          }
        });
        await channel.close();
      });
      const middle = world.party('middle', async () => {
        const where = new Origin(new Uint8Array(4), 0, new Uint8Array(8));
        const from = first.openRight({ origin: where });
        const to = second.openLeft();
        await unlessGone(async () => {
          for await (const message of from) await message.forward(to);
        });
        await to.close();
        await from.close();
      });
      const target = world.party('target', async () => {
        const channel = second.openRight({ mapRegion: async () => map(first.left) });
        await unlessGone(async () => {
          for await (const message of channel) {
            assert.deepEqual(
              message.copy(),
              payload(read, lengths[read] as number),
              'whole, in order',
            );
            message.release();
            read++;
          }
        });
        await channel.close();
      });
      const first = new Pair(world, origin, middle, SIZES);
      const second = new Pair(world, middle, target, SIZES);
      if (mortal) world.mayDie(middle);
      return () => {
        if (!middle.dead) assert.equal(read, lengths.length, 'all messages');
      };
    },
  };
}

export const scenarios: readonly Scenario[] = [
  forwardScenario('forward, small and large', [8, 40, 40], false),
  forwardScenario('forward, chunks in turn', [40, 40, 40, 40], false),
  forwardScenario('forward, the middle dies', [40, 8], true),
];
