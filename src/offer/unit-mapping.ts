// Memfds mapped side by side between two guards, and the one ArrayBuffer over all of them.
//
//     | guard | unit 0 | unit 1 | … | guard |
//
// The range is the buffer's until its finalizer; what lies in it may be replaced meanwhile, by the
// table of pages when it is closed, or by the thread that answers claims when a unit is given away.
import {
  MADV_DONTFORK,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_NONE,
} from '../abi/mman.js';
import { SyscallError } from '../core/errors.js';
import { advise, explainFault, GUARD_BYTES, map, PAGE_BYTES, unmap, wrap } from '../sys/memory.js';

const GUARD = Math.max(PAGE_BYTES, GUARD_BYTES);

/** Where units lie. */
export interface UnitMapping {
  readonly address: number;
  readonly buffer: ArrayBuffer;
}

/**
 * Maps memfds of `unitBytes` each in a row.
 *
 * @param onWrite - what the process says before it dies of a write, where it may not write.
 * @throws SyscallError when there is no address space, or a descriptor forbids it.
 */
export function mapUnits(
  fds: Int32Array,
  unitBytes: number,
  protection: number,
  onWrite: string | undefined,
): UnitMapping {
  const sizeBytes = fds.length * unitBytes;
  const reservationBytes = sizeBytes + 2 * GUARD;
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const reservation = map(0, reservationBytes, PROT_NONE, flags, -1);
  if (reservation < 0) throw new SyscallError('mmap', reservation, 'no address space');
  const address = reservation + GUARD;
  for (let i = 0; i < fds.length; i++) {
    const at = address + i * unitBytes;
    const result = map(at, unitBytes, protection, MAP_SHARED | MAP_FIXED, fds[i] as number);
    if (result >= 0) continue;
    unmap(reservation, reservationBytes);
    throw new SyscallError('mmap', result, `mapping ${unitBytes} bytes of offered pages`);
  }
  advise(address, sizeBytes, MADV_DONTFORK);
  const walked = 'ukshm: fatal: access beyond the end of offered pages\n';
  explainFault(reservation, reservation + reservationBytes, walked);
  if (onWrite !== undefined) explainFault(address, address + sizeBytes, `${onWrite}\n`);
  const buffer = wrap(address, sizeBytes, reservation, reservationBytes, false) as ArrayBuffer;
  return { address, buffer };
}
