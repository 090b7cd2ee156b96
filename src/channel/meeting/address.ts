// Names of listeners: an abstract socket name that carries the user's id, or a path.
//
//     abstract:  \0 ukshm/1/<uid>/<name>      gone with its listener, whoever kills it
//     path:      as given (it contains '/')   for containers that share a volume
//
// A path's socket file outlives a killed listener. Whoever finds nobody behind it removes it,
// under a lock on its folder, so that two cannot both take it over and nothing is left beside it.
import { closeSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { EADDRINUSE, EAGAIN, ECONNREFUSED, ENOENT } from '../../abi/errno.js';
import { LOCK_EX, LOCK_NB, LOCK_UN } from '../../abi/file.js';
import { invalidArgument, SyscallError, UkshmError } from '../../core/errors.js';
import { afterAlive, nowMs } from '../../sys/clock.js';
import { closeDescriptor } from '../../sys/memory.js';
import { ownUid } from '../../sys/process.js';
import {
  bind,
  connectSocket,
  fileLock,
  peerCredentials,
  startListening,
  unixAddress,
  unixSocket,
} from '../../sys/socket.js';
import { describe } from '../ends.js';

/** Abstract names start so; the number is the version of the meeting. */
export const ABSTRACT_PREFIX = 'ukshm/1/';
const BACKLOG = 256;
/** Others hold the lock on a folder for some 100 µs. */
const LOCK_PAUSE_MS = 1;
const LOCK_PATIENCE_MS = 5000;

/** Where one meets. */
export interface Address {
  readonly name: string;
  readonly abstract: boolean;
  /** `struct sockaddr_un`. */
  readonly bytes: Uint8Array;
}

/** The address of a name for user `uid`. @throws `ERR_UKSHM_INVALID_ARGUMENT`. */
export function addressOfName(name: string, uid: number = ownUid()): Address {
  if (typeof name !== 'string' || name === '' || name.includes('\0')) {
    throw invalidArgument('name', name, 'a non-empty string');
  }
  const abstract = !name.includes('/');
  if (abstract && !/^[A-Za-z0-9._-]+$/.test(name)) {
    throw invalidArgument('name', name, `letters, digits, '.', '_', '-'; or a path with '/'`);
  }
  const bytes = unixAddress(abstract ? `${ABSTRACT_PREFIX}${uid}/${name}` : name, abstract);
  if (bytes.length === 0) throw invalidArgument('name', name, 'a shorter name (107 bytes in all)');
  return { name, abstract, bytes };
}

/** A socket that listens at the address. @throws `ERR_UKSHM_NAME_IN_USE` and who has it. */
export async function listenAt(address: Address): Promise<number> {
  const fd = unixSocket();
  try {
    if (address.abstract) takeName(fd, address);
    else await whileLocked(dirname(address.name), () => takePath(fd, address));
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** Removes the socket file of a path at which nobody listens any more. */
export async function removeStale(address: Address): Promise<void> {
  if (address.abstract) return;
  try {
    await whileLocked(dirname(address.name), () => {
      if (occupant(address) === 'nobody') unlinkSync(address.name);
    });
  } catch {
    // Gone already, or another process is at it.
  }
}

function takePath(fd: number, address: Address): void {
  if (occupant(address) === 'nobody') unlinkSync(address.name);
  // Listens under the same lock: bound alone it would look like one that nobody is behind.
  takeName(fd, address);
}

function takeName(fd: number, address: Address): void {
  const result = bind(fd, address.bytes);
  if (result === 0) {
    const listening = startListening(fd, BACKLOG);
    if (listening < 0) throw new SyscallError('listen', listening);
    return;
  }
  if (result !== -EADDRINUSE) {
    throw new SyscallError('bind', result, `cannot listen at '${address.name}'`);
  }
  const who = occupant(address);
  throw new UkshmError(
    'ERR_UKSHM_NAME_IN_USE',
    `'${address.name}' is taken${who === 'nobody' || who === 'free' ? '' : ` by ${who}`}`,
  );
}

/** Who listens: in words; 'nobody' where only a socket file is left; 'free' where there is none. */
function occupant(address: Address): string {
  const fd = unixSocket();
  try {
    const result = connectSocket(fd, address.bytes);
    if (result === -ECONNREFUSED) {
      if (address.abstract) return 'free';
      const isSocket = lstatSync(address.name, { throwIfNoEntry: false })?.isSocket() ?? true;
      return isSocket ? 'nobody' : 'a file that is no socket';
    }
    if (result === -ENOENT) return 'free';
    if (result < 0) return 'a process that is too busy to say';
    return describe(peerCredentials(fd));
  } finally {
    closeDescriptor(fd);
  }
}

/** Runs `action` under an exclusive lock on a folder: it vanishes with its holder. */
async function whileLocked(folder: string, action: () => void): Promise<void> {
  const fd = openSync(folder, 'r');
  try {
    const start = nowMs();
    for (;;) {
      const result = fileLock(fd, LOCK_EX | LOCK_NB);
      if (result === 0) break;
      if (result !== -EAGAIN || nowMs() - start > LOCK_PATIENCE_MS) {
        throw new SyscallError('flock', result, `'${folder}' stays locked`);
      }
      await new Promise<void>((resolve) => afterAlive(LOCK_PAUSE_MS, resolve));
    }
    action();
  } finally {
    fileLock(fd, LOCK_UN);
    closeSync(fd);
  }
}
