// What a topic and its subscriptions are asked to be.
import type { Access } from '../../channel/meeting/access.js';
import { checkArenaBytes, checkRingBytes } from '../../channel/meeting/meeting.js';
import { checkInteger } from '../../core/check.js';
import { invalidArgument } from '../../core/errors.js';
import { RELEASE_SLOTS } from '../../memory/outbox-layout.js';
import type { JoinOptions } from '../joining.js';

/**
 * What becomes of a message for a subscriber that has `depth` others already:
 * - `'drop-oldest'`: it waits at the publisher among the newest `depth`; what it pushes out there is
 *   lost. What the subscriber was sent already stays.
 * - `'drop-newest'`: it is lost.
 * - `'block'`: the publisher waits. It must have allowed that (`mayBlock`).
 * - `'disconnect'`: the subscription ends with `ERR_UKSHM_TOO_SLOW`, behind what it was sent.
 */
export type SlowPolicy = 'block' | 'drop-newest' | 'drop-oldest' | 'disconnect';

const POLICIES: readonly string[] = ['block', 'drop-newest', 'drop-oldest', 'disconnect'];
export const DEPTH_MAX: number = RELEASE_SLOTS;
const DEPTH_DEFAULT = 256;
const ARENA_BYTES_DEFAULT = 16777216;
const RING_BYTES_DEFAULT = 262144;

/** How a topic is to be. */
export interface TopicOptions {
  /** Who may subscribe. Default `'same-user'`. */
  readonly access?: Access;
  /**
   * Memory for messages that are shared by the subscribers: those beyond some KiB. Room for two to
   * four a slow subscriber is ample. Default 16 MiB; one message takes at most a quarter.
   */
  readonly arenaBytes?: number;
  /** Memory for small messages, a subscriber. A power of two; default 256 KiB. */
  readonly ringBytes?: number;
  /** Subscribers at a time. Default 1024. */
  readonly maxSubscribers?: number;
  /**
   * How many of the last messages a late subscriber gets, 0 to 4096; fewer if they take more than a
   * quarter of `arenaBytes`. Default 0.
   */
  readonly keep?: number;
  /** Whether subscribers may choose `'block'`: any of them can then stop the topic. Default false. */
  readonly mayBlock?: boolean;
  /**
   * While the shared memory is exhausted, publishing waits this long; then subscribers that
   * released nothing meanwhile are disconnected. Default 200.
   */
  readonly patienceMs?: number;
  /** The first message's sequence number, a u32. Default 0. */
  readonly firstSequence?: number;
  /** How long to look on before waiting asleep, in µs, 0 to 10 000; adaptive. Default 20. */
  readonly spinMicros?: number;
  /** Closes the topic. */
  readonly signal?: AbortSignal;
}

/** How a subscription is to be. */
export interface SubscribeOptions extends JoinOptions {
  /** What happens where this subscriber is behind. Default `'drop-oldest'`. */
  readonly slow?: SlowPolicy;
  /**
   * How many messages it may have that it has not released, 1 to 4096; with `'drop-oldest'` as many
   * again wait at the publisher. A small message (up to 2 KiB) that is kept counts, and so do those
   * behind it. Default 256.
   */
  readonly depth?: number;
}

/** Options of a topic, checked. */
export interface TopicSettings {
  readonly arenaBytes: number;
  readonly ringBytes: number;
  readonly maxSubscribers: number;
  readonly keep: number;
  readonly mayBlock: boolean;
  readonly patienceMs: number;
  readonly firstSequence: number;
}

/** @throws UkshmError `ERR_UKSHM_INVALID_ARGUMENT`. */
export function topicSettings(options: TopicOptions): TopicSettings {
  const { arenaBytes = ARENA_BYTES_DEFAULT, ringBytes = RING_BYTES_DEFAULT } = options;
  const { maxSubscribers = 1024, keep = 0, patienceMs = 200, firstSequence = 0 } = options;
  return {
    arenaBytes: checkArenaBytes('arenaBytes', arenaBytes),
    ringBytes: checkRingBytes('ringBytes', ringBytes),
    maxSubscribers: checkInteger('maxSubscribers', maxSubscribers, 1, 65536),
    keep: checkInteger('keep', keep, 0, DEPTH_MAX),
    mayBlock: options.mayBlock ?? false,
    patienceMs: checkInteger('patienceMs', patienceMs, 0, 3600000),
    firstSequence: checkInteger('firstSequence', firstSequence, 0, 0xffffffff),
  };
}

/** What a subscriber asks of a topic. */
export interface Wishes {
  readonly slow: SlowPolicy;
  readonly depth: number;
}

/** Wishes out of options, or out of what a subscriber sent. @throws `ERR_UKSHM_INVALID_ARGUMENT`. */
export function checkWishes(given: { readonly slow?: unknown; readonly depth?: unknown }): Wishes {
  const { slow = 'drop-oldest', depth = DEPTH_DEFAULT } = given;
  if (typeof slow !== 'string' || !POLICIES.includes(slow)) {
    throw invalidArgument('slow', slow, `one of '${POLICIES.join("', '")}'`);
  }
  checkInteger('depth', depth as number, 1, DEPTH_MAX);
  return { slow: slow as SlowPolicy, depth: depth as number };
}
