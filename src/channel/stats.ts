// What a channel tells of itself in numbers.
import type { Receiver } from './receiver.js';
import type { Sender } from './sender.js';
import type { Spinner } from './spinner.js';

/** Numbers of one channel; counters run from its beginning. */
export interface ChannelStats {
  /** Bytes of our messages in the ring that the peer has not released. */
  readonly ringBytesUsed: number;
  /** Bytes of our chunks that the peer holds, or that are on loan here. */
  readonly bytesLent: number;
  readonly chunksLent: number;
  /** Received inline messages that are kept: they hold up the ring behind them. */
  readonly heldInline: number;
  readonly heldChunks: number;
  /** How often the peer was woken, and how often it woke us. */
  readonly ringsSent: number;
  readonly ringsReceived: number;
  /** Looks before sleeping, and those in which something came. */
  readonly spins: number;
  readonly spinsSucceeded: number;
  /** Sends that wait for space. */
  readonly waitingSends: number;
  /** Bytes of the two outboxes. */
  readonly sharedBytes: number;
}

/** The numbers of a channel's parts. */
export function channelStats(
  sender: Sender,
  receiver: Receiver,
  spinner: Spinner,
  others: Pick<ChannelStats, 'ringsReceived' | 'waitingSends'>,
): ChannelStats {
  return {
    ringBytesUsed: sender.ringBytesUsed,
    bytesLent: sender.lentBytes,
    chunksLent: sender.lentCount,
    heldInline: receiver.heldInline,
    heldChunks: receiver.heldChunks,
    ringsSent: sender.rings + receiver.rings,
    spins: spinner.count,
    spinsSucceeded: spinner.successes,
    sharedBytes: sender.layout.totalBytes + receiver.layout.totalBytes,
    ...others,
  };
}
