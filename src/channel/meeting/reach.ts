// From a name to a connected socket whose owner is who was expected.
import {
  EACCES,
  EAGAIN,
  ECONNREFUSED,
  EINPROGRESS,
  EINTR,
  ENOENT,
  EPERM,
} from '../../abi/errno.js';
import { SyscallError, UkshmError } from '../../core/errors.js';
import { afterAlive, nowMs } from '../../sys/clock.js';
import { closeDescriptor } from '../../sys/memory.js';
import { type Credentials, connectSocket, peerCredentials, unixSocket } from '../../sys/socket.js';
import { describe } from '../ends.js';
import { type Access, admits } from './access.js';
import type { Address } from './address.js';
import type { Deadline } from './handshake-io.js';

const WAIT_MS_MIN = 2;
const WAIT_MS_MAX = 100;

/** A connection to a listener that was checked, and nothing sent yet. */
export interface Reached {
  readonly fd: number;
  readonly address: Address;
  readonly peer: Credentials;
}

/** Connects to the first of `addresses` that has a listener, and checks whose it is. */
export async function reach(
  addresses: readonly Address[],
  owner: Access,
  wait: boolean,
  deadline: Deadline,
): Promise<Reached> {
  const start = nowMs();
  for (let pauseMs = WAIT_MS_MIN; ; pauseMs = Math.min(pauseMs * 2, WAIT_MS_MAX)) {
    let busy = false;
    for (const address of addresses) {
      deadline.signal?.throwIfAborted();
      const fd = unixSocket();
      const result = connectSocket(fd, address.bytes);
      if (result === 0) return { fd, address, peer: checkOwner(fd, address, owner) };
      closeDescriptor(fd);
      // A full backlog is EAGAIN, and poll does not wait for it.
      if (result === -EAGAIN || result === -EINPROGRESS || result === -EINTR) busy = true;
      else if (result !== -ECONNREFUSED && result !== -ENOENT) throw cannotReach(result, address);
    }
    if (!busy && !wait) {
      throw new UkshmError(
        'ERR_UKSHM_NO_LISTENER',
        `nobody listens at '${addresses[0]?.name}': start the listener first, or connect with ` +
          '{ wait: true }',
      );
    }
    if (busy && nowMs() - start > deadline.timeoutMs) {
      throw new UkshmError('ERR_UKSHM_TIMEOUT', `${deadline.what}: too many connect at once`);
    }
    await pause(pauseMs, deadline.signal);
  }
}

function cannotReach(result: number, address: Address): UkshmError {
  if (result === -EACCES || result === -EPERM) {
    return new SyscallError('connect', result, `'${address.name}'`, 'ERR_UKSHM_ACCESS_DENIED');
  }
  return new SyscallError('connect', result, `'${address.name}'`);
}

/** Names are first come, first served: nothing is sent before the kernel says whose this one is. */
function checkOwner(fd: number, address: Address, owner: Access): Credentials {
  try {
    const peer = peerCredentials(fd);
    if (admits(owner, peer)) return peer;
    throw new UkshmError(
      'ERR_UKSHM_WRONG_OWNER',
      `'${address.name}' is held by ${describe(peer)}, who is not the owner expected: choose ` +
        "another name, or name that owner in connect()'s 'owner'",
    );
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = afterAlive(ms, () => {
      signal?.removeEventListener('abort', aborted);
      resolve();
    });
    signal?.addEventListener('abort', aborted, { once: true });
  });
}
