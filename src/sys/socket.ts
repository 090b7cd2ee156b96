// Typed system calls on Unix sockets. All are non-blocking and closed on exec.
// Source: unix(7), socket(7), sendmsg(2).
import { ENOSYS } from '../abi/errno.js';
import {
  AF_UNIX,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SHUT_RDWR,
  SO_ERROR,
  SO_PASSRIGHTS,
  SO_PEERCRED,
  SO_PEERPIDFD,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  SOL_SOCKET,
  UNIX_PATH_MAX,
} from '../abi/socket.js';
import { addon } from './addon.js';
import { check } from './memory.js';

const NO_DESCRIPTORS = new Int32Array(0);

/** Who the kernel says is at the other end, as of when the connection was made. */
export interface Credentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

export function unixSocket(): number {
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  return check(addon.socket(AF_UNIX, type, 0), 'socket');
}

/** One that keeps the bounds of messages. */
export function packetSocket(): number {
  const type = SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC;
  return check(addon.socket(AF_UNIX, type, 0), 'socket');
}

/** `struct sockaddr_un`: an abstract name starts with a zero byte, a path ends with one. */
export function unixAddress(name: string, abstract: boolean): Uint8Array {
  const path = Buffer.from(abstract ? `\0${name}` : `${name}\0`);
  if (path.length > UNIX_PATH_MAX) return new Uint8Array(0);
  const address = new Uint8Array(2 + path.length);
  new Uint16Array(address.buffer, 0, 1)[0] = AF_UNIX;
  address.set(path, 2);
  return address;
}

export function bind(fd: number, address: Uint8Array): number {
  return addon.bind(fd, address);
}

export function startListening(fd: number, backlog: number): number {
  return addon.listen(fd, backlog);
}

export function connectSocket(fd: number, address: Uint8Array): number {
  return addon.connect(fd, address);
}

/** A new connection's descriptor, or -errno (EAGAIN: none waits). */
export function accept(fd: number): number {
  return addon.accept4(fd, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/** Bytes sent, or -errno; never blocks, never raises SIGPIPE. */
export function send(fd: number, bytes: Uint8Array): number {
  return addon.send(fd, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** Bytes received, 0 at the end, or -errno; a passed descriptor is dropped by the kernel. */
export function receive(fd: number, bytes: Uint8Array): number {
  return addon.recv(fd, bytes, MSG_DONTWAIT);
}

export function sendDescriptors(fd: number, bytes: Uint8Array, fds: Int32Array): number {
  return addon.sendDescriptors(fd, bytes, fds, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** As `receive`; descriptors that came fill `fds`, the rest of it is -1. */
export function receiveDescriptors(fd: number, bytes: Uint8Array, fds: Int32Array): number {
  return addon.recvDescriptors(fd, bytes, fds, MSG_DONTWAIT);
}

export function shutdownSocket(fd: number): void {
  addon.shutdown(fd, SHUT_RDWR);
}

/** The pending error of a socket, as -errno or 0. */
export function socketError(fd: number): number {
  const words = new Int32Array(1);
  const result = addon.getsockopt(fd, SOL_SOCKET, SO_ERROR, words);
  return result < 0 ? result : -(words[0] as number);
}

export function peerCredentials(fd: number): Credentials {
  const words = new Int32Array(3);
  check(addon.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, words), 'getsockopt(SO_PEERCRED)');
  const [pid = 0, uid = 0, gid = 0] = words;
  return { pid, uid: uid >>> 0, gid: gid >>> 0 };
}

/** A pidfd of the peer, safe against a reused pid (Linux 6.5), or -errno. */
export function peerPidfd(fd: number): number {
  const words = new Int32Array(1);
  const result = addon.getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, words);
  if (result < 0) return result;
  if (result !== 4) return -ENOSYS;
  const pidfd = words[0] as number;
  addon.own(pidfd);
  return pidfd;
}

/** Makes a sender of descriptors fail with EPERM (Linux 6.16); -ENOPROTOOPT where unknown. */
export function refuseDescriptors(fd: number): number {
  return addon.setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, 0);
}

export function sendPlain(fd: number, bytes: Uint8Array): number {
  return sendDescriptors(fd, bytes, NO_DESCRIPTORS);
}

/** Takes an advisory lock on a file or folder; -EAGAIN where another holds it. */
export function fileLock(fd: number, operation: number): number {
  return addon.flock(fd, operation);
}
