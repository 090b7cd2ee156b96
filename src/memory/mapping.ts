// One mapped memfd between two guards, and the one ArrayBuffer over it.
//
//     | guard, no access | the memory | guard, no access |
//       at least 64 KiB    sizeBytes    at least 64 KiB
//
// Closing puts private zero pages in place of the memory at once and leaves the address range to
// the ArrayBuffer's finalizer, because an operation of Node's thread pool that points into it
// holds the backing store (docs/ARCHITECTURE.md, Closing).
import {
  MADV_DONTFORK,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from '../abi/mman.js';
import { SyscallError } from '../core/errors.js';
import { roundUp } from '../core/u32.js';
import {
  advise,
  adviseAsync,
  explainFault,
  GUARD_BYTES,
  lock,
  map,
  PAGE_BYTES,
  unmap,
  wrap,
} from '../sys/memory.js';

/** Pages of 2 MiB, the one huge size that ukshm uses. */
export const HUGE_PAGE_BYTES = 2097152;

/** What a mapping may be asked for. */
export interface MapOptions {
  readonly writable: boolean;
  readonly hugePages: boolean;
  /** A SharedArrayBuffer instead of an ArrayBuffer. */
  readonly shared?: boolean;
  /** What the process says before it dies of a write to read-only memory. */
  readonly onWrite?: string;
  /** The memory's name, for what it says of a walk past its ends. */
  readonly name: string;
}

export class Mapping {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly longs: BigInt64Array;
  readonly sizeBytes: number;
  readonly address: number;
  readonly writable: boolean;
  readonly #hugePages: boolean;
  #closed = false;

  /**
   * Maps a whole memfd of `sizeBytes` (a multiple of the page).
   * @throws SyscallError when there is no address space, or the descriptor forbids it.
   */
  constructor(fd: number, sizeBytes: number, options: MapOptions) {
    const unit = options.hugePages ? HUGE_PAGE_BYTES : PAGE_BYTES;
    const guard = Math.max(unit, GUARD_BYTES);
    // Huge pages must start at a multiple of their size: one more unit to find it in.
    const slack = options.hugePages ? unit : 0;
    const reservationBytes = sizeBytes + 2 * guard + slack;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const reservation = map(0, reservationBytes, PROT_NONE, flags, -1);
    if (reservation < 0) throw new SyscallError('mmap', reservation, 'no address space');
    const address = roundUp(reservation + guard, unit);
    const protection = options.writable ? PROT_READ | PROT_WRITE : PROT_READ;
    const result = map(address, sizeBytes, protection, MAP_SHARED | MAP_FIXED, fd);
    if (result < 0) {
      unmap(reservation, reservationBytes);
      throw new SyscallError('mmap', result, `mapping ${sizeBytes} bytes of '${options.name}'`);
    }
    // A forked child would otherwise share what only this process may write.
    advise(address, sizeBytes, MADV_DONTFORK);
    const walked = `ukshm: fatal: access beyond the end of region '${options.name}'\n`;
    explainFault(reservation, reservation + reservationBytes, walked);
    if (options.onWrite !== undefined) {
      explainFault(address, address + sizeBytes, `${options.onWrite}\n`);
    }
    this.buffer = wrap(address, sizeBytes, reservation, reservationBytes, options.shared ?? false);
    this.bytes = new Uint8Array(this.buffer);
    this.words = new Int32Array(this.buffer);
    this.longs = new BigInt64Array(this.buffer);
    this.sizeBytes = sizeBytes;
    this.address = address;
    this.writable = options.writable;
    this.#hugePages = options.hugePages;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Makes the page tables of the first `lengthBytes` now, off the main thread, so that no first
   * touch costs a fault later.
   */
  async populate(lengthBytes: number): Promise<void> {
    const advice = this.writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    // Only a hint: before Linux 5.14 the kernel refuses, and pages come at their first touch.
    await adviseAsync(this.address, lengthBytes, advice);
  }

  /** Locks the pages into memory; 0 or -errno. */
  lock(): number {
    return lock(this.address, this.sizeBytes);
  }

  /** Frees the memory at once; views that are left read zeros, and writes to them go nowhere. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // `transfer()` by user code moved the memory to another ArrayBuffer: its finalizer frees it,
    // perhaps has freed it, and this range is no longer ours to map.
    if (this.buffer.byteLength === 0) return;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    const result = map(this.address, this.sizeBytes, PROT_READ | PROT_WRITE, flags, -1);
    if (result < 0) throw new SyscallError('mmap', result, 'replacing a closed mapping');
  }

  /** Bytes to which sizes are rounded. */
  get unitBytes(): number {
    return this.#hugePages ? HUGE_PAGE_BYTES : PAGE_BYTES;
  }
}
