// A region: one memfd, mapped between guards, from which its owner gives out chunks.
import { ENOSYS, EPERM } from '../abi/errno.js';
import { F_SEAL_GROW, F_SEAL_SHRINK } from '../abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGE_2MB, MFD_HUGETLB } from '../abi/memfd.js';
import { checkInteger, checkPowerOfTwo } from '../core/check.js';
import { closedError, invalidArgument, SyscallError, UkshmError } from '../core/errors.js';
import { roundUp } from '../core/u32.js';
import { warn } from '../sys/clock.js';
import {
  addSeals,
  allocate,
  canShareBuffers,
  closeDescriptor,
  duplicate,
  memfdCreate,
  PAGE_BYTES,
  stat,
  truncate,
} from '../sys/memory.js';
import { memlockLimitBytes } from '../sys/process.js';
import { ChunkAllocator } from './chunk-allocator.js';
import { HUGE_PAGE_BYTES, Mapping } from './mapping.js';

/** Cache lines are at most this long on the machines that Node runs on. */
export const CACHE_LINE_BYTES = 64;
/** A region is at most this large: chunk offsets stay exact and fit every kernel interface. */
export const REGION_BYTES_MAX: number = 2 ** 36;
const GRANULES_MAX = 65536;

/** `'require'`: an error where it cannot be had; `'prefer'`: reported instead. */
export type Wish = 'require' | 'prefer' | false;

/** What a region is to be. */
export interface RegionOptions {
  /** 1 to 2^36; rounded up to pages (2 MiB with huge pages). */
  readonly sizeBytes: number;
  /** Shown in /proc/PID/maps and in errors; at most 200 bytes. */
  readonly name?: string;
  /** Lock the pages into memory: never swapped. Default false. */
  readonly wired?: Wish;
  /** Pages of 2 MiB. Default false. */
  readonly hugePages?: Wish;
  /** A SharedArrayBuffer instead of an ArrayBuffer; needs Node 26. Default false. */
  readonly shared?: boolean;
  /**
   * The unit in which chunks are given out: a power of two, at least 64. Default: 64, or as much
   * as makes 65 536 of them.
   */
  readonly granuleBytes?: number;
}

/** What another thread of this process needs to attach; may be posted to a worker. */
export interface RegionHandle {
  readonly fd: number;
  readonly inode: number;
  readonly sizeBytes: number;
  readonly name: string;
  readonly hugePages: boolean;
  readonly wired: boolean;
  readonly shared: boolean;
}

/** How a region's memory is used, in bytes. */
export interface RegionStats {
  readonly sizeBytes: number;
  readonly freeBytes: number;
  readonly chunkCount: number;
}

/** What a chunk is to be. */
export interface AllocOptions {
  /** A power of two up to the region's size. Default 64, a cache line. */
  readonly align?: number;
  /** Never crosses a huge page (2 MiB), and so is at most that long. Default false. */
  readonly contiguous?: boolean;
}

/** A piece of a region: its owner's until `free()`. */
export interface Chunk {
  /** The memory in place; zeros after the region's `close()`. */
  readonly bytes: Uint8Array;
  /** Bytes from the region's start. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** @throws UkshmError `ERR_UKSHM_DOUBLE_FREE`, `ERR_UKSHM_CLOSED`. */
  free(): void;
}

// A region that its program lost without close(): the descriptor is closed here, the pages go with
// the last view. The held value may not refer to the region.
const forgotten: FinalizationRegistry<{ fd: number; name: string }> = new FinalizationRegistry(
  ({ fd, name }) => {
    closeDescriptor(fd);
    warn(
      `region '${name}' was forgotten without close(); its memory waited for the garbage collector`,
      'UKSHM_REGION_FORGOTTEN',
    );
  },
);

/**
 * Memory that this process shares: with its workers (by `handle`), with the kernel, with peers.
 * Source: memfd_create(2), mmap(2), mlock(2).
 */
export class Region {
  readonly name: string;
  readonly sizeBytes: number;
  /** Whether the pages are locked into memory. */
  readonly wired: boolean;
  /** Whether the pages are huge ones. */
  readonly hugePages: boolean;
  /** What was preferred and not had, and why. */
  readonly notes: readonly string[];
  readonly handle: RegionHandle;
  readonly #mapping: Mapping;
  readonly #allocator: ChunkAllocator | undefined;
  readonly #holders: Set<string> = new Set();
  #closed = false;

  private constructor(
    mapping: Mapping,
    handle: RegionHandle,
    notes: readonly string[],
    granuleBytes: number,
  ) {
    this.name = handle.name;
    this.sizeBytes = handle.sizeBytes;
    this.wired = handle.wired;
    this.hugePages = handle.hugePages;
    this.notes = notes;
    this.handle = handle;
    this.#mapping = mapping;
    this.#allocator =
      granuleBytes === 0
        ? undefined
        : new ChunkAllocator(handle.sizeBytes, granuleBytes, HUGE_PAGE_BYTES);
    forgotten.register(this, { fd: handle.fd, name: handle.name }, this);
  }

  /**
   * Makes a region. Blocks while its pages are allocated (some 0.4 ms a MiB).
   *
   * @throws UkshmError `ERR_UKSHM_NO_MEMORY`; `ERR_UKSHM_MEMLOCK_LIMIT` (wired: 'require');
   * `ERR_UKSHM_NO_HUGE_PAGES` (hugePages: 'require'); `ERR_UKSHM_UNSUPPORTED` (shared, on a Node
   * without it); `ERR_UKSHM_INVALID_ARGUMENT`.
   */
  static create(options: RegionOptions): Region {
    const wired = checkWish('wired', options.wired ?? false);
    const wantsHuge = checkWish('hugePages', options.hugePages ?? false);
    const shared = options.shared ?? false;
    const name = options.name ?? 'region';
    checkInteger('sizeBytes', options.sizeBytes, 1, REGION_BYTES_MAX);
    if (Buffer.byteLength(name) > 200) throw invalidArgument('name', name, 'at most 200 bytes');
    if (shared && !canShareBuffers()) {
      throw new UkshmError(
        'ERR_UKSHM_UNSUPPORTED',
        `shared: true needs Node 26 or later; this is ${process.version}. Attach the region's ` +
          'handle in each worker instead',
      );
    }
    const notes: string[] = [];
    const { fd, sizeBytes, hugePages } = allocatePages(name, options.sizeBytes, wantsHuge, notes);
    let mapping: Mapping;
    let granule: number;
    try {
      granule = granuleFor(sizeBytes, options.granuleBytes);
      if (addSeals(fd, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        throw new UkshmError('ERR_UKSHM_UNSUPPORTED', 'this kernel cannot seal a memfd');
      }
      mapping = new Mapping(fd, sizeBytes, { writable: true, hugePages, shared, name });
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
    let locked: boolean;
    try {
      locked = wire(mapping, wired, notes);
    } catch (error) {
      mapping.close();
      closeDescriptor(fd);
      throw error;
    }
    const inode = stat(fd, 'inode');
    const handle = { fd, inode, sizeBytes, name, hugePages, wired: locked, shared };
    return new Region(mapping, handle, notes, granule);
  }

  /**
   * Maps a region of this process a second time: in a worker, from the handle posted to it.
   * Chunks are given out by the region that `create` made; this one has its memory.
   *
   * @throws UkshmError `ERR_UKSHM_CLOSED` if the region was closed meanwhile.
   */
  static attach(handle: RegionHandle): Region {
    if (typeof handle?.fd !== 'number' || stat(handle.fd, 'inode') !== handle.inode) {
      throw closedError(`region '${handle?.name}'`);
    }
    const fd = duplicate(handle.fd);
    try {
      const { name, hugePages } = handle;
      const mapping = new Mapping(fd, handle.sizeBytes, { writable: true, hugePages, name });
      return new Region(mapping, { ...handle, fd, shared: false }, [], 0);
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
  }

  /** The memory; every Node API takes views of it. Posting a view to a worker copies all of it. */
  get buffer(): ArrayBuffer | SharedArrayBuffer {
    this.#checkOpen();
    return this.#mapping.buffer;
  }

  /** All of the memory as bytes. */
  get bytes(): Uint8Array {
    this.#checkOpen();
    return this.#mapping.bytes;
  }

  /** As `tryAlloc`, but exhaustion is `ERR_UKSHM_NO_SPACE`. */
  alloc(lengthBytes: number, options?: AllocOptions): Chunk {
    const chunk = this.tryAlloc(lengthBytes, options);
    if (chunk !== undefined) return chunk;
    const { freeBytes } = this.stats();
    throw new UkshmError(
      'ERR_UKSHM_NO_SPACE',
      `region '${this.name}' has no ${lengthBytes} bytes in a row (${freeBytes} of ` +
        `${this.sizeBytes} are free): free chunks, or make the region larger`,
    );
  }

  /**
   * A chunk of at least `lengthBytes`, or `undefined` when no run of that length is free. A chunk
   * occupies its length rounded up to the granule, and a request fails only if no such run exists.
   *
   * @throws UkshmError `ERR_UKSHM_INVALID_ARGUMENT`, `ERR_UKSHM_CLOSED`, `ERR_UKSHM_NOT_OWNER` (an
   * attached region).
   */
  tryAlloc(lengthBytes: number, options?: AllocOptions): Chunk | undefined {
    this.#checkOpen();
    const allocator = this.#allocator;
    if (allocator === undefined) {
      throw new UkshmError(
        'ERR_UKSHM_NOT_OWNER',
        `region '${this.name}' is attached here; the thread that created it gives out its chunks`,
      );
    }
    const contiguous = options?.contiguous ?? false;
    checkInteger('lengthBytes', lengthBytes, 1, contiguous ? HUGE_PAGE_BYTES : this.sizeBytes);
    const alignMax = 2 ** Math.floor(Math.log2(this.sizeBytes));
    const align = checkPowerOfTwo('align', options?.align ?? CACHE_LINE_BYTES, 1, alignMax);
    const start = allocator.tryAlloc(lengthBytes, align, contiguous);
    if (start < 0) return undefined;
    return this.#chunk(allocator, start, lengthBytes);
  }

  /** How the memory is used now. */
  stats(): RegionStats {
    const { sizeBytes } = this;
    const freeBytes = this.#allocator?.freeBytes ?? 0;
    return { sizeBytes, freeBytes, chunkCount: this.#allocator?.chunkCount ?? 0 };
  }

  /** Who else holds memory of this region right now, in words. Empty: nobody. */
  get heldBy(): readonly string[] {
    return [...this.#holders];
  }

  /** Marks the region as held by a peer or the kernel, until the answer is called. For ukshm. */
  hold(by: string): () => void {
    this.#checkOpen();
    this.#holders.add(by);
    return () => {
      this.#holders.delete(by);
    };
  }

  /**
   * Frees the memory at once. Views of it that are left read zeros; what is in flight in Node's
   * thread pool ends harmlessly. Idempotent.
   *
   * @throws UkshmError `ERR_UKSHM_REGION_HELD` while a peer or the kernel holds memory of it.
   */
  close(): void {
    if (this.#closed) return;
    if (this.#holders.size > 0) {
      throw new UkshmError(
        'ERR_UKSHM_REGION_HELD',
        `region '${this.name}' is still held by ${[...this.#holders].join(', ')}`,
      );
    }
    this.#closed = true;
    forgotten.unregister(this);
    closeDescriptor(this.handle.fd);
    this.#mapping.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError(`region '${this.name}'`);
  }

  #chunk(allocator: ChunkAllocator, start: number, lengthBytes: number): Chunk {
    const offset = start * allocator.granuleBytes;
    const bytes = new Uint8Array(this.#mapping.buffer, offset, lengthBytes);
    let freed = false;
    const free = (): void => {
      this.#checkOpen();
      if (freed) {
        throw new UkshmError(
          'ERR_UKSHM_DOUBLE_FREE',
          `the chunk at ${offset} of region '${this.name}' was freed before`,
        );
      }
      freed = true;
      allocator.free(start);
    };
    return { bytes, offset, lengthBytes, free };
  }
}

function checkWish(name: string, wish: Wish): Wish {
  if (wish === 'require' || wish === 'prefer' || wish === false) return wish;
  throw invalidArgument(name, wish, `'require', 'prefer' or false`);
}

function granuleFor(sizeBytes: number, asked: number | undefined): number {
  if (asked !== undefined) {
    checkPowerOfTwo('granuleBytes', asked, CACHE_LINE_BYTES, PAGE_BYTES);
    checkInteger('sizeBytes / granuleBytes', sizeBytes / asked, 1, 2 ** 24);
    return asked;
  }
  let granule = CACHE_LINE_BYTES;
  while (sizeBytes / granule > GRANULES_MAX && granule < PAGE_BYTES) granule *= 2;
  while (sizeBytes / granule > 2 ** 24) granule *= 2;
  return granule;
}

interface Pages {
  readonly fd: number;
  readonly sizeBytes: number;
  readonly hugePages: boolean;
}

/** A memfd with all its pages, huge ones if they are wished for and to be had. */
function allocatePages(name: string, askedBytes: number, wish: Wish, notes: string[]): Pages {
  if (wish !== false) {
    const sizeBytes = roundUp(askedBytes, HUGE_PAGE_BYTES);
    const fd = tryPages(name, sizeBytes, MFD_HUGETLB | MFD_HUGE_2MB);
    if (fd >= 0) return { fd, sizeBytes, hugePages: true };
    const count = sizeBytes / HUGE_PAGE_BYTES;
    const why =
      `no ${count} free huge pages (errno ${-fd}): as root, write at least that number more to ` +
      '/proc/sys/vm/nr_hugepages';
    if (wish === 'require') throw new UkshmError('ERR_UKSHM_NO_HUGE_PAGES', why);
    notes.push(why);
  }
  const sizeBytes = roundUp(askedBytes, PAGE_BYTES);
  const fd = tryPages(name, sizeBytes, 0);
  if (fd >= 0) return { fd, sizeBytes, hugePages: false };
  if (fd === -EPERM || fd === -ENOSYS) {
    throw new SyscallError('memfd_create', fd, 'forbidden here', 'ERR_UKSHM_UNSUPPORTED');
  }
  throw new SyscallError('fallocate', fd, `no ${sizeBytes} bytes free`, 'ERR_UKSHM_NO_MEMORY');
}

function tryPages(name: string, sizeBytes: number, flags: number): number {
  const fd = memfdCreate(`ukshm:${name}`, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  if (fd < 0) return fd;
  let result = truncate(fd, sizeBytes);
  if (result >= 0) result = allocate(fd, sizeBytes);
  if (result >= 0) return fd;
  closeDescriptor(fd);
  return result;
}

function wire(mapping: Mapping, wish: Wish, notes: string[]): boolean {
  if (wish === false) return false;
  const result = mapping.lock();
  if (result >= 0) return true;
  const why =
    `cannot lock ${mapping.sizeBytes} bytes into memory: RLIMIT_MEMLOCK is ` +
    `${memlockLimitBytes()} bytes. Raise it ('ulimit -l', LimitMEMLOCK= in systemd), or give the ` +
    'program CAP_IPC_LOCK';
  if (wish === 'require') {
    throw new SyscallError('mlock', result, why, 'ERR_UKSHM_MEMLOCK_LIMIT');
  }
  notes.push(why);
  return false;
}
