// What a meeting ends with: all that a channel is made of.
import type { Mapping } from '../memory/mapping.js';
import type { OutboxLayout } from '../memory/outbox-layout.js';
import type { Credentials } from '../sys/socket.js';
import type { Importer, Origin } from './forward.js';

/** What the meeting hands to a channel. */
export interface ChannelParts {
  readonly name: string;
  readonly peer: Credentials;
  readonly fd: number;
  readonly pidfd: number;
  readonly own: Mapping;
  readonly ownLayout: OutboxLayout;
  readonly other: Mapping;
  readonly otherLayout: OutboxLayout;
  readonly inFlightBytes: number;
  readonly spinMicros: number;
  readonly peerCannotFence: boolean;
  /** Where others may import the peer's outbox, if anywhere. */
  readonly origin: Origin | undefined;
  /** Maps regions that the peer forwards from. */
  readonly importer: Importer;
  /** Called once when the channel has ended. */
  readonly onEnd: () => void;
}
