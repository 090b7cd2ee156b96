// Typed system calls on memory. Source: memfd_create(2), fcntl(2), mmap(2), madvise(2), mlock(2).
import { EINTR } from '../abi/errno.js';
import { F_ADD_SEALS, F_DUPFD_CLOEXEC, F_GET_SEALS } from '../abi/fcntl.js';
import { SyscallError } from '../core/errors.js';
import { addon } from './addon.js';

/** `sysconf(_SC_PAGESIZE)` is at most this on the machines that Node runs on (arm64: 64 KiB). */
export const GUARD_BYTES = 65536;
/** What mappings are rounded to. */
export const PAGE_BYTES: number = process.arch === 'x64' ? 4096 : 65536;

/** The result of a call, or its error thrown. */
export function check(result: number, syscall: string, hint?: string): number {
  if (result < 0) throw new SyscallError(syscall, result, hint);
  return result;
}

/** A new memfd, closed on exec. */
export function memfdCreate(name: string, flags: number): number {
  return addon.memfdCreate(name, flags);
}

/** Sets the size of a memfd. */
export function truncate(fd: number, sizeBytes: number): number {
  return addon.ftruncate(fd, sizeBytes);
}

/** Allocates all pages of a memfd; may take 0.4 ms a MiB. */
export function allocate(fd: number, sizeBytes: number): number {
  let result = addon.fallocate(fd, 0, 0, sizeBytes);
  while (result === -EINTR) result = addon.fallocate(fd, 0, 0, sizeBytes);
  return result;
}

/** As `allocate`, in Node's thread pool. */
export async function allocateAsync(fd: number, sizeBytes: number): Promise<number> {
  let result = await addon.fallocateAsync(fd, 0, 0, sizeBytes);
  while (result === -EINTR) result = await addon.fallocateAsync(fd, 0, 0, sizeBytes);
  return result;
}

export function addSeals(fd: number, seals: number): number {
  return addon.fcntl(fd, F_ADD_SEALS, seals);
}

/** As `addSeals`, in Node's thread pool: the kernel may wait for pages in flight. */
export function addSealsAsync(fd: number, seals: number): Promise<number> {
  return addon.fcntlAsync(fd, F_ADD_SEALS, seals);
}

/** The seals of a memfd, or -errno: EINVAL for anything that is not one, without touching it. */
export function getSeals(fd: number): number {
  return addon.fcntl(fd, F_GET_SEALS, 0);
}

/** As `getSeals`, in Node's thread pool. */
export function getSealsAsync(fd: number): Promise<number> {
  return addon.fcntlAsync(fd, F_GET_SEALS, 0);
}

/** A second descriptor for the same file, closed on exec. */
export function duplicate(fd: number): number {
  return check(addon.fcntl(fd, F_DUPFD_CLOEXEC, 3), 'fcntl(F_DUPFD_CLOEXEC)');
}

/** What `stat` tells of a descriptor. */
export type StatField = 'sizeBytes' | 'allocatedBytes' | 'inode';
const STAT_FIELDS: readonly StatField[] = ['sizeBytes', 'allocatedBytes', 'inode'];

export function stat(fd: number, field: StatField): number {
  return addon.stat(fd, STAT_FIELDS.indexOf(field));
}

/** As `stat`, in Node's thread pool: a foreign descriptor may hang. */
export function statAsync(fd: number, field: StatField): Promise<number> {
  return addon.statAsync(fd, STAT_FIELDS.indexOf(field));
}

export function closeDescriptor(fd: number): void {
  addon.close(fd);
}

/** Closes descriptors that a stranger passed (-1: none), apart: even close(2) may hang for ever. */
export function closeForeign(fds: Int32Array): void {
  for (const fd of fds) if (fd >= 0) addon.closeApart(fd);
}

/** An address below 2^53, or -errno. */
export function map(
  address: number,
  lengthBytes: number,
  protection: number,
  flags: number,
  fd: number,
): number {
  return addon.mmap(address, lengthBytes, protection, flags, fd);
}

export function unmap(address: number, lengthBytes: number): void {
  addon.munmap(address, lengthBytes);
}

export function advise(address: number, lengthBytes: number, advice: number): number {
  return addon.madvise(address, lengthBytes, advice);
}

/** As `advise`, in Node's thread pool. */
export function adviseAsync(address: number, lengthBytes: number, advice: number): Promise<number> {
  return addon.madviseAsync(address, lengthBytes, advice);
}

/** Locks pages into memory: never swapped. -ENOMEM or -EPERM beyond RLIMIT_MEMLOCK. */
export function lock(address: number, lengthBytes: number): number {
  return addon.mlock(address, lengthBytes);
}

/**
 * The one ArrayBuffer over a mapping; its finalizer unmaps the whole reservation.
 * V8 aborts when one address is wrapped twice: call once a mapping.
 */
export function wrap(
  address: number,
  lengthBytes: number,
  reservation: number,
  reservationBytes: number,
  shared: boolean,
): ArrayBuffer | SharedArrayBuffer {
  const buffer = addon.wrap(address, lengthBytes, reservation, reservationBytes, shared);
  if (typeof buffer === 'number') {
    throw new SyscallError('napi_create_external_arraybuffer', buffer, 'this Node forbids it');
  }
  return buffer;
}

/** Whether this Node makes SharedArrayBuffers over foreign memory (26 and later). */
export function canShareBuffers(): boolean {
  return addon.hasExternalSharedArrayBuffer();
}

/** The address of a view's first byte in this process: for proofs and messages, never for access. */
export function addressOf(view: ArrayBufferView): number {
  return addon.addressOf(view);
}

/** What the process says, before it dies, of a forbidden access in `[start, end)`. */
export function explainFault(start: number, end: number, text: string): void {
  addon.explainFault(start, end, text);
}
