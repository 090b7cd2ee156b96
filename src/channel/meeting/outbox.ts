// Makes, checks and maps outboxes. The listener creates both of a channel; each side seals its own.
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGE_2MB, MFD_HUGETLB } from '../../abi/memfd.js';
import { peerMisbehaved, SyscallError } from '../../core/errors.js';
import { roundUp } from '../../core/u32.js';
import { HUGE_PAGE_BYTES, Mapping } from '../../memory/mapping.js';
import { type OutboxLayout, writeConfig } from '../../memory/outbox-layout.js';
import {
  addSeals,
  allocateAsync,
  closeDescriptor,
  getSealsAsync,
  memfdCreate,
  statAsync,
  truncate,
} from '../../sys/memory.js';

/** No one else can map it writable, and it neither shrinks nor grows. */
const OUTBOX_SEALS: number = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

/** The size of an outbox's memfd. */
export function outboxBytes(layout: OutboxLayout, hugePages: boolean): number {
  return hugePages ? roundUp(layout.totalBytes, HUGE_PAGE_BYTES) : layout.totalBytes;
}

/**
 * A memfd for an outbox with all its pages, allocated off the main thread.
 * @throws SyscallError `ERR_UKSHM_NO_MEMORY`.
 */
export async function createOutbox(
  name: string,
  layout: OutboxLayout,
  hugePages: boolean,
): Promise<number> {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugePages ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
  const fd = memfdCreate(`ukshm:${name.slice(0, 200)}`, flags);
  if (fd < 0) throw new SyscallError('memfd_create', fd, '', 'ERR_UKSHM_NO_MEMORY');
  const sizeBytes = outboxBytes(layout, hugePages);
  let result = truncate(fd, sizeBytes);
  if (result >= 0) result = await allocateAsync(fd, sizeBytes);
  if (result >= 0) return fd;
  closeDescriptor(fd);
  const hint = hugePages ? `${sizeBytes} bytes of huge pages` : `${sizeBytes} bytes`;
  throw new SyscallError('fallocate', result, hint, 'ERR_UKSHM_NO_MEMORY');
}

/**
 * Maps this side's own outbox writable, and seals it against all others. The rings get their page
 * tables at once; the arena, often far larger, as it is used.
 */
export async function mapOwn(
  fd: number,
  layout: OutboxLayout,
  hugePages: boolean,
  name: string,
): Promise<Mapping> {
  const mapping = new Mapping(fd, outboxBytes(layout, hugePages), {
    writable: true,
    hugePages,
    name,
  });
  const result = addSeals(fd, OUTBOX_SEALS);
  if (result < 0) {
    mapping.close();
    throw new SyscallError('fcntl(F_ADD_SEALS)', result, 'the outbox cannot be sealed');
  }
  writeConfig(mapping.words, layout);
  await mapping.populate(layout.arenaOffset);
  return mapping;
}

/** Maps the other side's outbox read-only. `from` names the peer, for the fault's message. */
export async function mapPeer(
  fd: number,
  layout: OutboxLayout,
  hugePages: boolean,
  name: string,
  from: string,
): Promise<Mapping> {
  const mapping = new Mapping(fd, outboxBytes(layout, hugePages), {
    writable: false,
    hugePages,
    name,
    onWrite:
      `ukshm: fatal: write to a received message of '${name.slice(0, 60)}' from ${from}: it is ` +
      'read-only. message.copy() gives a writable copy',
  });
  await mapping.populate(layout.arenaOffset);
  return mapping;
}

/**
 * Checks a descriptor before anything touches its memory. Seals first: F_GET_SEALS answers EINVAL
 * for whatever is no memfd, while even fstat of a hostile file may hang. All off the main thread.
 *
 * @param sealed - the other side has mapped and sealed it already.
 * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`.
 */
export async function checkOutbox(
  fd: number,
  layout: OutboxLayout,
  hugePages: boolean,
  sealed: boolean,
): Promise<void> {
  const seals = await getSealsAsync(fd);
  if (seals < 0) throw peerMisbehaved('the descriptor it passed is not a memfd');
  const size = F_SEAL_SHRINK | F_SEAL_GROW;
  const wanted = sealed ? OUTBOX_SEALS : size;
  if ((seals & wanted) !== wanted || (!sealed && (seals & (F_SEAL_SEAL | F_SEAL_WRITE)) !== 0)) {
    throw peerMisbehaved(`the memfd it passed has the seals ${seals}`);
  }
  const sizeBytes = outboxBytes(layout, hugePages);
  const actual = await statAsync(fd, 'sizeBytes');
  if (actual !== sizeBytes) {
    throw peerMisbehaved(`its memfd has ${actual} bytes, not the ${sizeBytes} agreed`);
  }
  const allocated = await statAsync(fd, 'allocatedBytes');
  if (allocated < sizeBytes) {
    throw peerMisbehaved(`its memfd is sparse: ${allocated} of ${sizeBytes} bytes allocated`);
  }
}

/** Seals the size of an outbox that the other side is going to map and seal. */
export function sealSize(fd: number): void {
  const result = addSeals(fd, F_SEAL_SHRINK | F_SEAL_GROW);
  if (result < 0) throw new SyscallError('fcntl(F_ADD_SEALS)', result);
}
