// What listener and connector share: options with their limits, and the end of a meeting.
import { checkInteger, checkPowerOfTwo } from '../../core/check.js';
import { roundUp } from '../../core/u32.js';
import {
  ARENA_BYTES_MAX,
  ARENA_UNIT_BYTES,
  RING_BYTES_MAX,
  RING_BYTES_MIN,
} from '../../memory/outbox-layout.js';
import { processorCount } from '../../sys/clock.js';
import { closeDescriptor } from '../../sys/memory.js';
import { ownPid, pidfdOpen } from '../../sys/process.js';
import { type Credentials, peerPidfd } from '../../sys/socket.js';

export const RING_BYTES_DEFAULT = 262144;
export const ARENA_BYTES_DEFAULT = 4194304;
/** About a second-level cache: 17 GB/s against 11 with more in flight. */
export const IN_FLIGHT_BYTES_DEFAULT = 2097152;
export const MEETING_TIMEOUT_MS = 5000;
/** Where another processor can answer meanwhile, looking on beats a wake-up of 35 µs. */
const SPIN_MICROS_DEFAULT = 20;

/** Options of an end, the same for both sides. */
export interface EndOptions {
  /**
   * How long to look on before sleeping, in µs, 0 to 10 000; adaptive. Default 20, and 0 where
   * there is one processor.
   */
  readonly spinMicros?: number;
  /** Bytes of chunks in flight beyond which loans wait (two always fit). Default 2 MiB. */
  readonly inFlightBytes?: number;
}

export interface EndSettings {
  readonly spinMicros: number;
  readonly inFlightBytes: number;
}

export function endSettings(options: EndOptions): EndSettings {
  const several = processorCount() > 1;
  const spinMicros = options.spinMicros ?? SPIN_MICROS_DEFAULT;
  checkInteger('spinMicros', spinMicros, 0, 10000);
  const inFlightBytes = options.inFlightBytes ?? IN_FLIGHT_BYTES_DEFAULT;
  checkInteger('inFlightBytes', inFlightBytes, 0, ARENA_BYTES_MAX);
  return { spinMicros: several ? spinMicros : 0, inFlightBytes };
}

/** A ring size given by a user: a power of two. */
export function checkRingBytes(name: string, value: number): number {
  return checkPowerOfTwo(name, value, RING_BYTES_MIN, RING_BYTES_MAX);
}

/** An arena size given by a user, rounded up to 64 KiB. */
export function checkArenaBytes(name: string, value: number): number {
  return roundUp(checkInteger(name, value, 0, ARENA_BYTES_MAX), ARENA_UNIT_BYTES);
}

/** Whether sizes from the wire can be an outbox's. */
export function plausibleSizes(ringBytes: number, arenaBytes: number): boolean {
  return (
    ringBytes >= RING_BYTES_MIN &&
    ringBytes <= RING_BYTES_MAX &&
    (ringBytes & (ringBytes - 1)) === 0 &&
    arenaBytes <= ARENA_BYTES_MAX &&
    arenaBytes % ARENA_UNIT_BYTES === 0
  );
}

/** A pidfd by which the peer's death is noticed; negative for a thread of our own process. */
export function watchPeer(fd: number, peer: Credentials): number {
  if (peer.pid === ownPid()) return -1;
  const pidfd = peerPidfd(fd);
  // Before Linux 6.5: by number. A reused pid would only delay the news; the socket tells as well.
  return pidfd >= 0 ? pidfd : pidfdOpen(peer.pid);
}

/** Closes what a failed meeting leaves. */
export function closeAll(...fds: number[]): void {
  for (const fd of fds) if (fd >= 0) closeDescriptor(fd);
}

/** Both results; if one cannot be had, the other is undone. */
export async function both<T>(
  work: readonly [Promise<T>, Promise<T>],
  undo: (result: T) => void,
): Promise<[T, T]> {
  const [first, second] = await Promise.allSettled(work);
  if (first.status === 'fulfilled' && second.status === 'fulfilled') {
    return [first.value, second.value];
  }
  for (const one of [first, second]) if (one.status === 'fulfilled') undo(one.value);
  throw (first.status === 'rejected' ? first : (second as PromiseRejectedResult)).reason;
}
