// Pages that can be handed to another process: units of one memfd each, side by side.
import { EBUSY, EMFILE, ENOSYS, EPERM } from '../abi/errno.js';
import { F_SEAL_GROW, F_SEAL_SHRINK } from '../abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../abi/memfd.js';
import { PROT_EXEC, PROT_READ, PROT_WRITE } from '../abi/mman.js';
import { checkInteger } from '../core/check.js';
import { closedError, SyscallError, UkshmError } from '../core/errors.js';
import { roundUp } from '../core/u32.js';
import {
  addSeals,
  allocate,
  closeDescriptor,
  memfdCreate,
  PAGE_BYTES,
  truncate,
} from '../sys/memory.js';
import { addPages, closePages, lendUnits, pagesRights, unitsHeld } from '../sys/offers.js';
import { lettersOf, RIGHT_R, RIGHT_W, RIGHT_X, RIGHTS_ALL } from './rights.js';
import { mapUnits, type UnitMapping } from './unit-mapping.js';

const SIZE_BYTES_MAX: number = 2 ** 36;
/** Each unit is a descriptor of this process. */
const UNITS_MAX = 16384;

/** What pages are to be. */
export interface PagesOptions {
  /** 1 to 2^36; rounded up to whole units. */
  readonly sizeBytes: number;
  /** The least that can be offered, rounded up to pages of the machine. Default: all of it. */
  readonly unitBytes?: number;
}

/** A run of units. @internal */
export interface Run {
  readonly first: number;
  readonly count: number;
}

/** Memory that can be offered to other processes, or that was claimed from one. */
export class Pages {
  readonly sizeBytes: number;
  readonly unitBytes: number;
  /** Where they lie in this process: by this number, or one inside, a receiver claims them. */
  readonly address: number;
  readonly #buffer: ArrayBuffer;
  readonly #bytes: Uint8Array;
  #closed = false;

  /** @internal */
  constructor(mapping: UnitMapping, unitBytes: number) {
    this.sizeBytes = mapping.buffer.byteLength;
    this.unitBytes = unitBytes;
    this.address = mapping.address;
    this.#buffer = mapping.buffer;
    this.#bytes = new Uint8Array(mapping.buffer);
  }

  /**
   * Fresh pages, all zeros. Blocks while they are allocated (some 0.4 ms a MiB).
   *
   * @throws UkshmError `ERR_UKSHM_INVALID_ARGUMENT`, `ERR_UKSHM_NO_MEMORY`, `ERR_UKSHM_LIMIT` (more
   * than 16 384 units, or than this process may have descriptors).
   */
  static allocate(options: PagesOptions): Pages {
    checkInteger('sizeBytes', options.sizeBytes, 1, SIZE_BYTES_MAX);
    const asked = options.unitBytes ?? options.sizeBytes;
    const unitBytes = roundUp(checkInteger('unitBytes', asked, 1, SIZE_BYTES_MAX), PAGE_BYTES);
    const count = Math.ceil(options.sizeBytes / unitBytes);
    if (count > UNITS_MAX) {
      const text = `${count} units; ${UNITS_MAX} are the most: use larger ones`;
      throw new UkshmError('ERR_UKSHM_LIMIT', text);
    }
    const fds = new Int32Array(count).fill(-1);
    try {
      for (let i = 0; i < count; i++) fds[i] = createUnit(unitBytes);
      return adopt(fds, unitBytes, RIGHTS_ALL, PROT_READ | PROT_WRITE, undefined);
    } catch (error) {
      for (const fd of fds) if (fd >= 0) closeDescriptor(fd);
      throw error;
    }
  }

  /** The memory. What is read in units that were given away is zero. @throws as `bytes`. */
  get buffer(): ArrayBuffer {
    this.#checkOpen();
    return this.#buffer;
  }

  /** All of the memory as bytes. @throws UkshmError `ERR_UKSHM_CLOSED`: closed, or given away. */
  get bytes(): Uint8Array {
    this.#checkOpen();
    return this.#bytes;
  }

  /** Whether they were closed here, or given away entirely. */
  get closed(): boolean {
    return this.#closed || unitsHeld(this.address) <= 0;
  }

  /**
   * What this process may do with all of them and may grant, as 'rw'; '' if some were given away.
   * Its own mapping is executable only if they were claimed so.
   */
  get rights(): string {
    return lettersOf(this.#rights(0, this.sizeBytes / this.unitBytes));
  }

  /** The rights of the unit at `offset`; '' if it was given away. */
  rightsAt(offset: number): string {
    checkInteger('offset', offset, 0, this.sizeBytes - 1);
    return lettersOf(this.#rights(Math.floor(offset / this.unitBytes), 1));
  }

  /**
   * Frees the memory at once, unless another process has it too; ends what is offered of it. Views
   * that are left read zeros. Idempotent.
   *
   * @throws UkshmError `ERR_UKSHM_LENT` while the kernel holds some of them.
   */
  close(): void {
    if (this.#closed) return;
    const result = closePages(this.address);
    if (result === -EBUSY) throw lentError();
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Marks a range as lent to the kernel: it cannot be claimed or closed until the answer is called.
   * @internal
   */
  lend(offset: number, lengthBytes: number): () => void {
    const first = Math.floor(offset / this.unitBytes);
    const count = Math.ceil((offset + lengthBytes) / this.unitBytes) - first;
    this.#checkOpen();
    if (lendUnits(this.address, first, count, 1) < 0) throw givenAway();
    let back = false;
    return () => {
      if (!back) lendUnits(this.address, first, count, -1);
      back = true;
    };
  }

  /** The units of a range. @throws `ERR_UKSHM_NOT_UNIT_ALIGNED`. @internal */
  run(offset: number, sizeBytes: number): Run {
    const { unitBytes } = this;
    checkInteger('offset', offset, 0, this.sizeBytes);
    checkInteger('sizeBytes', sizeBytes, 0, this.sizeBytes - offset);
    if (offset % unitBytes !== 0 || sizeBytes % unitBytes !== 0) {
      throw new UkshmError(
        'ERR_UKSHM_NOT_UNIT_ALIGNED',
        `${sizeBytes} bytes at ${offset} are no whole units of ${unitBytes} bytes: rights belong ` +
          'to a unit. Allocate with a smaller unitBytes, or offer all of it',
      );
    }
    return { first: offset / unitBytes, count: sizeBytes / unitBytes };
  }

  #rights(first: number, count: number): number {
    return this.#closed ? 0 : Math.max(0, pagesRights(this.address, first, count));
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError('this range of pages');
    if (unitsHeld(this.address) <= 0) throw givenAway();
  }
}

/** Maps units and hands their descriptors to the table; on failure they are still the caller's. */
export function adopt(
  fds: Int32Array,
  unitBytes: number,
  rights: number,
  protection: number,
  onWrite: string | undefined,
): Pages {
  const mapping = mapUnits(fds, unitBytes, protection, onWrite);
  const result = addPages(mapping.address, unitBytes, fds, rights, protection);
  // The mapping goes with its buffer, which nobody has.
  if (result < 0) throw new SyscallError('malloc', result, '', 'ERR_UKSHM_NO_MEMORY');
  return new Pages(mapping, unitBytes);
}

/** PROT_* for rights. */
export function protectionOf(rights: number): number {
  return (
    (rights & RIGHT_R ? PROT_READ : 0) |
    (rights & RIGHT_W ? PROT_WRITE : 0) |
    (rights & RIGHT_X ? PROT_EXEC : 0)
  );
}

/** What was given to another process is no longer this one's. */
export function givenAway(): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_CLOSED',
    'these pages were given away: another process claimed them, and this one has dropped them',
  );
}

function lentError(): UkshmError {
  return new UkshmError('ERR_UKSHM_LENT', 'the kernel still holds some of these pages');
}

function createUnit(unitBytes: number): number {
  const fd = memfdCreate('ukshm:pages', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd === -EPERM || fd === -ENOSYS) {
    throw new SyscallError('memfd_create', fd, 'forbidden here', 'ERR_UKSHM_UNSUPPORTED');
  }
  if (fd === -EMFILE) {
    const hint = "each unit takes a descriptor: use larger units, or raise 'ulimit -n'";
    throw new SyscallError('memfd_create', fd, hint, 'ERR_UKSHM_LIMIT');
  }
  if (fd < 0) throw new SyscallError('memfd_create', fd, '', 'ERR_UKSHM_NO_MEMORY');
  let result = truncate(fd, unitBytes);
  if (result >= 0) result = allocate(fd, unitBytes);
  if (result >= 0) result = addSeals(fd, F_SEAL_SHRINK | F_SEAL_GROW);
  if (result >= 0) return fd;
  closeDescriptor(fd);
  throw new SyscallError('fallocate', result, `no ${unitBytes} bytes free`, 'ERR_UKSHM_NO_MEMORY');
}
