// Who may meet whom: checks of the credentials that the kernel reports (SO_PEERCRED).
import { invalidArgument } from '../../core/errors.js';
import { overflowUid, ownUid } from '../../sys/process.js';
import type { Credentials } from '../../sys/socket.js';

/**
 * Which processes are admitted: of the same effective user, of listed users, listed processes, or
 * whatever a function says of the credentials. A process id alone is safe only while its process
 * is known to live.
 */
export type Access =
  | 'same-user'
  | { readonly uids?: readonly number[]; readonly pids?: readonly number[] }
  | ((peer: Credentials) => boolean);

/** Checks the shape of an `Access` given by a user. */
export function checkAccess(name: string, access: Access): Access {
  const lists = typeof access === 'object' && access !== null;
  if (access === 'same-user' || typeof access === 'function') return access;
  if (lists && (Array.isArray(access.uids) || Array.isArray(access.pids))) return access;
  throw invalidArgument(name, access, `'same-user', { uids: [] }, { pids: [] } or a function`);
}

/** Whether `access` admits the peer. A user that the namespace does not map equals nobody. */
export function admits(access: Access, peer: Credentials): boolean {
  if (typeof access === 'function') return access(peer) === true;
  if (access !== 'same-user') {
    if (access.pids?.includes(peer.pid)) return true;
    return access.uids?.includes(peer.uid) === true && peer.uid !== overflowUid();
  }
  return peer.uid === ownUid() && peer.uid !== overflowUid();
}
