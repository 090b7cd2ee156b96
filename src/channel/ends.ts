// The errors with which a channel's waits, calls and requests end.
import { UkshmError } from '../core/errors.js';
import type { Credentials } from '../sys/socket.js';

/** The peer in words, for errors. */
export function describe(peer: Credentials): string {
  return `process ${peer.pid} of user ${peer.uid}`;
}

/** The peer died: its socket hung up, or its pidfd told, without a word before. */
export function peerGone(peer: Credentials, name: string): UkshmError {
  const text = `${describe(peer)} is gone; the channel '${name}' has ended`;
  return new UkshmError('ERR_UKSHM_PEER_GONE', text);
}

/** The peer closed: it reads nothing more. */
export function peerClosed(peer: Credentials, name: string): UkshmError {
  const text = `${describe(peer)} has closed the channel '${name}'`;
  return new UkshmError('ERR_UKSHM_PEER_CLOSED', text);
}

/** A second consumer. */
export function busy(name: string): UkshmError {
  const text = `the channel '${name}' already has a consumer: one reads at a time`;
  return new UkshmError('ERR_UKSHM_BUSY', text);
}

/** A reply to a message that is none. */
export function notARequest(): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_NOT_A_REQUEST',
    'the sender of this message waits for no reply: send() it a message of your own',
  );
}

/** A second reply. @param answered - by a reply; else by being released. */
export function alreadyReplied(answered: boolean): UkshmError {
  const text = answered
    ? 'the request has been answered: a request has one reply'
    : 'the request was released, which told the other side that there is no reply';
  return new UkshmError('ERR_UKSHM_ALREADY_REPLIED', text);
}

/** What the other side is told of a request that was let go. */
export function noReply(): UkshmError {
  return new UkshmError('ERR_UKSHM_NO_REPLY', 'the request was released without a reply');
}

/** Its sender waits for a reply from here. */
export function cannotForwardRequest(): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_CANNOT_FORWARD',
    'a request cannot be forwarded: ask the other process yourself, and reply with its answer',
  );
}

/** A second `take()`. */
export function takenBefore(): UkshmError {
  return new UkshmError('ERR_UKSHM_MESSAGE_RELEASED', 'the message was taken before: take() once');
}

/** `take()` behind the handler. */
export function takenTooLate(): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_MESSAGE_RELEASED',
    'a cursor is valid only inside the handler of its drain: take() the message there',
  );
}

/** Reading inside the handler of a drain. */
export function drainInDrain(): UkshmError {
  return new UkshmError('ERR_UKSHM_BUSY', 'drain was called inside the handler of a drain');
}
