// Loads the addon: the one place that does. What it exports is typed here, call by call.
import { createRequire } from 'node:module';
import { UkshmError } from '../core/errors.js';
import { addonPath, platformName } from './platform.js';

/** The addon's functions: results are the system call's own, or -errno. */
export interface Addon {
  memfdCreate(name: string, flags: number): number;
  ftruncate(fd: number, sizeBytes: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  close(fd: number): number;
  disown(fd: number): void;
  own(fd: number): void;
  flock(fd: number, operation: number): number;
  mmap(address: number, length: number, protection: number, flags: number, fd: number): number;
  munmap(address: number, length: number): number;
  madvise(address: number, length: number, advice: number): number;
  mlock(address: number, length: number): number;
  wrap(
    address: number,
    length: number,
    reservation: number,
    reservationLength: number,
    shared: boolean,
  ): ArrayBuffer | SharedArrayBuffer | number;
  hasExternalSharedArrayBuffer(): boolean;
  addressOf(view: ArrayBufferView): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  stat(fd: number, field: number): number;
  fallocateAsync(fd: number, mode: number, offset: number, length: number): Promise<number>;
  fcntlAsync(fd: number, command: number, argument: number): Promise<number>;
  closeApart(fd: number): number;
  madviseAsync(address: number, length: number, advice: number): Promise<number>;
  statAsync(fd: number, field: number): Promise<number>;
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array): number;
  connect(fd: number, address: Uint8Array): number;
  listen(fd: number, backlog: number): number;
  accept4(fd: number, flags: number): number;
  send(fd: number, bytes: Uint8Array, flags: number): number;
  recv(fd: number, bytes: Uint8Array, flags: number): number;
  sendDescriptors(fd: number, bytes: Uint8Array, fds: Int32Array, flags: number): number;
  recvDescriptors(fd: number, bytes: Uint8Array, fds: Int32Array, flags: number): number;
  setsockopt(fd: number, level: number, option: number, value: number): number;
  getsockopt(fd: number, level: number, option: number, words: Int32Array): number;
  shutdown(fd: number, how: number): number;
  pidfdOpen(pid: number): number;
  getrlimit(resource: number): number;
  probeSyscall(number: number, a: number, b: number, c: number): number;
  epollCreate1(flags: number): number;
  epollCtl(epoll: number, operation: number, fd: number, events: number): number;
  epollWait(epoll: number, words: Int32Array): number;
  watch(epoll: number, callback: () => boolean): object | number;
  keepAlive(watcher: object, yes: boolean): void;
  offersOpen(): number;
  offersWatch(yes: boolean): void;
  offersTake(pairs: Float64Array): number;
  offersList(out: Float64Array): number;
  offersChallenge(yes: boolean): void;
  pagesAdd(
    address: number,
    unitBytes: number,
    fds: Int32Array,
    rights: number,
    protection: number,
  ): number;
  pagesClose(address: number): number;
  pagesRights(address: number, first: number, count: number): number;
  pagesHeld(address: number): number;
  pagesLend(address: number, first: number, count: number, by: number): number;
  pagesClaimed(address: number, unit: number): boolean;
  offerAdd(
    address: number,
    first: number,
    count: number,
    pid: number,
    grant: number,
    drop: number,
  ): number;
  offerCancel(address: number, serial: number, pid: number): number;
  explainFault(start: number, end: number, text: string): void;
}

function load(): Addon {
  // Linux with glibc is the common case; asking for the C library costs 10 ms, so only on failure.
  const usual = addonPath(`${process.platform}-${process.arch}-glibc`);
  const require = createRequire(import.meta.url);
  try {
    return require(usual) as Addon;
  } catch (cause) {
    const platform = platformName();
    try {
      return require(addonPath(platform)) as Addon;
    } catch {
      const cure =
        process.platform === 'linux'
          ? `build it for this machine with 'npx ukshm build' (needs a C compiler)`
          : 'ukshm needs Linux';
      const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
      throw new UkshmError(
        'ERR_UKSHM_ADDON',
        `no addon loads on ${platform}, Node ${process.version}: ${cure}. (${reason})`,
        { cause },
      );
    }
  }
}

/** The addon, loaded when this module is first imported. */
export const addon: Addon = load();
