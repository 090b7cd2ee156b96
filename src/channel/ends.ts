// The errors with which a channel's waits and calls end.
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
