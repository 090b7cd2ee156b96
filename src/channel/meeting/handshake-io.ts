// Reads and writes of fixed length during a meeting, on a non-blocking socket, until a deadline.

import { EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../../abi/epoll.js';
import { EAGAIN, ECONNRESET, EINTR, EPIPE } from '../../abi/errno.js';
import { SyscallError, UkshmError } from '../../core/errors.js';
import { closeForeign } from '../../sys/memory.js';
import { type Deadline, whenReady } from '../../sys/ready.js';
import { receive, receiveDescriptors, sendDescriptors } from '../../sys/socket.js';

export type { Deadline };

/** The other side went away in the middle of the meeting. */
export function goneInMeeting(what: string): UkshmError {
  return new UkshmError('ERR_UKSHM_PEER_GONE', `${what}: the other side went away`);
}

/** Exactly `lengthBytes`; never more, since doorbell bytes may follow at once. */
export function readExactly(
  fd: number,
  lengthBytes: number,
  deadline: Deadline,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes);
  let filled = 0;
  return whenReady(fd, EPOLLIN | EPOLLRDHUP, deadline, () => {
    const result = receive(fd, bytes.subarray(filled));
    filled += progress('recv', result, deadline.what);
    return filled === lengthBytes ? bytes : undefined;
  });
}

/** As `readExactly`, with the descriptors that come on the first byte; others are closed. */
export function readWithDescriptors(
  fd: number,
  lengthBytes: number,
  fds: Int32Array,
  deadline: Deadline,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes);
  const late = new Int32Array(fds.length);
  let filled = 0;
  fds.fill(-1);
  return whenReady(fd, EPOLLIN | EPOLLRDHUP, deadline, () => {
    const first = filled === 0;
    const result = receiveDescriptors(fd, bytes.subarray(filled), first ? fds : late);
    if (!first) closeForeign(late);
    filled += progress('recvmsg', result, deadline.what);
    return filled === lengthBytes ? bytes : undefined;
  });
}

/** Sends a HELLO. A listener that refuses may have hung up before it: its answer is still read. */
export async function writeHello(fd: number, hello: Uint8Array, deadline: Deadline): Promise<void> {
  try {
    await writeAll(fd, hello, new Int32Array(0), deadline);
  } catch (error) {
    if (!(error instanceof UkshmError && error.code === 'ERR_UKSHM_PEER_GONE')) throw error;
  }
}

/** Sends all of `bytes`; the descriptors go with the first byte. */
export function writeAll(
  fd: number,
  bytes: Uint8Array,
  fds: Int32Array,
  deadline: Deadline,
): Promise<true> {
  let sent = 0;
  const none = new Int32Array(0);
  return whenReady(fd, EPOLLOUT, deadline, () => {
    const result = sendDescriptors(fd, bytes.subarray(sent), sent === 0 ? fds : none);
    sent += progress('sendmsg', result, deadline.what, true);
    return sent === bytes.length ? true : undefined;
  });
}

function progress(syscall: string, result: number, what: string, sending = false): number {
  if (result > 0) return result;
  if (result === -EAGAIN || result === -EINTR) return 0;
  if (result === -ECONNRESET || result === -EPIPE || (result === 0 && !sending)) {
    throw goneInMeeting(what);
  }
  throw new SyscallError(syscall, result, what);
}
