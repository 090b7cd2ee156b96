// What a channel is asked and what it tells: the types of its interface.
import type { UkshmError } from '../core/errors.js';

/** Why a channel ended. */
export interface CloseReason {
  readonly reason: 'closed' | 'peer-closed' | 'peer-gone' | 'peer-misbehaved';
  readonly error?: UkshmError;
}

/** What a message carries beside its bytes. */
export interface MessageOptions {
  /** 0 to 16 383; default 0. */
  readonly type?: number;
  /** A u32 by which requests and replies are matched; default 0. */
  readonly id?: number;
}

/** As `MessageOptions`, and when the peer sees it. */
export interface TrySendOptions extends MessageOptions {
  /** `false`: the peer sees it at the next `publish()`. Default true. */
  readonly publish?: boolean;
}

/** How a wait may end early. */
export interface WaitOptions {
  /** Ends the wait: the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** How a request goes out. */
export interface RequestOptions extends WaitOptions {
  /** 0 to 16 383, for the other side to tell requests apart; default 0. */
  readonly type?: number;
  /** Where the body is a loan: how much of it is sent. Default all. */
  readonly lengthBytes?: number;
}

/** How a reply goes out. */
export type ReplyOptions = RequestOptions;
