// How the three processes meet, and how they tell a neighbour's death from the end of the file.
import type { Channel } from '../index.js';
import { NeighbourLost } from './child.js';
import type { Role } from './control.js';

/** Listeners of the other side come within milliseconds; a started process needs some 50. */
const MEETING_MS = 20_000;

/** What a channel's calls fail with when the other side is no longer there. */
const ENDS: readonly string[] = [
  'ERR_UKSHM_PEER_GONE',
  'ERR_UKSHM_PEER_CLOSED',
  'ERR_UKSHM_CLOSED',
];

/** The longest that two of the processes wait for each other at the start. */
export function meetingDeadline(): AbortSignal {
  return AbortSignal.timeout(MEETING_MS);
}

/**
 * Waits for the meeting with a neighbour.
 *
 * @throws NeighbourLost when it fails: the supervisor knows better why that process is not there.
 */
export async function meetNeighbour<Met>(meet: () => Promise<Met>, neighbour: Role): Promise<Met> {
  try {
    return await meet();
  } catch (error) {
    throw new NeighbourLost(neighbour, error);
  }
}

/**
 * Does `work`, unless a channel ends before it is done: a process that waits for a FIFO or a disk
 * would not look at its channels.
 *
 * @throws NeighbourLost naming the neighbour whose channel ended.
 */
export async function unlessLost<Result>(
  channels: readonly (readonly [Channel, Role])[],
  work: () => Promise<Result>,
): Promise<Result> {
  let done = false;
  const ended = channels.map(async ([channel, neighbour]) => {
    const { reason, error } = await channel.closed;
    if (!done) throw new NeighbourLost(neighbour, error ?? `the channel ended: ${reason}`);
    return new Promise<never>(() => {});
  });
  for (const promise of ended) promise.catch(() => {});
  try {
    return await Promise.race([work(), ...ended]);
  } catch (error) {
    throw await blame(error, channels);
  } finally {
    done = true;
  }
}

/** An error of a channel means its neighbour; which one, the ended channel tells. */
async function blame(
  error: unknown,
  channels: readonly (readonly [Channel, Role])[],
): Promise<unknown> {
  if (error instanceof NeighbourLost || !isEnd(error)) return error;
  const open = Symbol('open');
  for (const [channel, neighbour] of channels) {
    const state = await Promise.race([channel.closed, Promise.resolve(open)]);
    if (state !== open) return new NeighbourLost(neighbour, error);
  }
  return new NeighbourLost(channels[0][1], error);
}

function isEnd(error: unknown): boolean {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' && ENDS.includes(code);
}
