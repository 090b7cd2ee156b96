// Claiming pages that another process offers to this one.
//
// What comes is input: descriptors are checked to be memfds, sealed in size, of the size that was
// said, and without holes (a sparse one would charge this process for its pages), before anything
// is mapped. F_GET_SEALS comes first: it touches no file that is not a memfd.
import { EBUSY } from '../abi/errno.js';
import { F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE } from '../abi/fcntl.js';
import { checkInteger } from '../core/check.js';
import { peerMisbehaved, SyscallError, UkshmError } from '../core/errors.js';
import { addSealsAsync, closeForeign, getSeals, PAGE_BYTES, stat } from '../sys/memory.js';
import { Conversation } from './conversation.js';
import { checkPid } from './offer.js';
import { adopt, type Pages, protectionOf } from './pages.js';
import { Patience, reach } from './reach.js';
import { lettersOf, RIGHT_R, RIGHT_W, RIGHTS_ALL } from './rights.js';
import { type Answer, DONE, FAILED, GRANT, KIND_CLAIM, LENT, NOT_OFFERED } from './wire.js';

const TIMEOUT_MS = 5000;
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** How pages are claimed. */
export interface ClaimOptions {
  /**
   * Only if the kernel proves that nobody, the source included, can write them any more. The pages
   * are then read-only here as well, whatever was granted. Default false.
   */
  readonly immutable?: boolean;
  /** How long it may take, 1 to 2^31 - 1. Default 5000. */
  readonly timeoutMs?: number;
  /** Ends the wait; what was granted at that moment is freed. */
  readonly signal?: AbortSignal;
}

/**
 * Takes pages that process `pid` offers to this one. When it resolves, an honest source has dropped
 * what it said it would drop, whatever its JavaScript is doing.
 *
 * @param address - as the source's `offer` told it.
 * @returns the pages, mapped here with the rights granted.
 * @throws UkshmError `ERR_UKSHM_NOT_OFFERED`: nothing there is offered to this process, or no more;
 * `ERR_UKSHM_NO_PROCESS`; `ERR_UKSHM_LENT`: the kernel uses them, try again; `ERR_UKSHM_TIMEOUT`;
 * `ERR_UKSHM_STILL_WRITABLE` (immutable: somebody kept write access; what was claimed is freed);
 * `ERR_UKSHM_PEER_GONE`, `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_INVALID_ARGUMENT`; the signal's
 * reason.
 */
export async function claim(
  pid: number,
  address: number,
  options: ClaimOptions = {},
): Promise<Pages> {
  const { immutable = false, timeoutMs = TIMEOUT_MS, signal } = options;
  checkPid(pid);
  checkInteger('address', address, 1, Number.MAX_SAFE_INTEGER);
  checkInteger('timeoutMs', timeoutMs, 1, TIMEOUT_MS_MAX);
  signal?.throwIfAborted();
  const patience = new Patience(`the claim on process ${pid}`, timeoutMs, signal);
  for (;;) {
    const line = await reach(pid, patience);
    if (line === undefined) throw notOffered(pid, address);
    const conversation = new Conversation(pid, line, patience);
    let complete = false;
    try {
      const packet = await conversation.ask(KIND_CLAIM, address);
      complete = packet?.answer.status === NOT_OFFERED;
      if (packet !== undefined) {
        if (packet.answer.status !== GRANT) throw refusal(packet.answer, pid, address);
        const fds = conversation.takeDescriptors();
        const done = await whenDone(conversation, fds, pid);
        const pages = await take(packet.answer, done, fds, pid, immutable, patience);
        complete = true;
        return pages;
      }
    } finally {
      conversation.close(complete);
    }
    // Hung up without a word: pushed out by others, or the source ended. The next look will tell.
    if (patience.over) throw notOffered(pid, address);
    await patience.pause();
  }
}

/** The second answer: the source has dropped. @throws `ERR_UKSHM_PEER_GONE`, or as `take`. */
async function whenDone(conversation: Conversation, fds: Int32Array, pid: number): Promise<Answer> {
  try {
    const done = await conversation.next();
    if (done !== undefined) return done.answer;
    const text = `process ${pid} ended while its pages were claimed`;
    throw new UkshmError('ERR_UKSHM_PEER_GONE', text);
  } catch (error) {
    closeForeign(fds);
    throw error;
  }
}

async function take(
  granted: Answer,
  done: Answer,
  fds: Int32Array,
  pid: number,
  immutable: boolean,
  patience: Patience,
): Promise<Pages> {
  try {
    if (done.status !== DONE) throw refusal(done, pid, 0);
    checkGrant(granted, fds);
    let rights = granted.grant;
    if (immutable) {
      await sealAll(fds, pid, patience);
      rights &= ~RIGHT_W;
    }
    const onWrite =
      rights & RIGHT_W
        ? undefined
        : `ukshm: fatal: write to pages claimed from process ${pid}: granted '${lettersOf(rights)}'`;
    return adopt(fds, granted.unitBytes, rights, protectionOf(rights), onWrite);
  } catch (error) {
    closeForeign(fds);
    throw error;
  }
}

/** @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`. */
function checkGrant(granted: Answer, fds: Int32Array): void {
  const { unitBytes, unitCount, grant } = granted;
  if (unitCount === 0 || fds.length !== unitCount) {
    throw peerMisbehaved(`it passed ${fds.length} descriptors for ${unitCount} units`);
  }
  if (!Number.isSafeInteger(unitBytes) || unitBytes === 0 || unitBytes % PAGE_BYTES !== 0) {
    throw peerMisbehaved(`its units have ${unitBytes} bytes`);
  }
  if ((grant & RIGHT_R) === 0 || (grant & ~RIGHTS_ALL) !== 0) {
    throw peerMisbehaved(`it grants the rights ${grant}`);
  }
  for (const fd of fds) checkUnit(fd, unitBytes, grant);
}

function checkUnit(fd: number, unitBytes: number, grant: number): void {
  const seals = getSeals(fd);
  if (seals < 0) throw peerMisbehaved('a descriptor that it passed is not a memfd');
  const size = F_SEAL_SHRINK | F_SEAL_GROW;
  const unwritable = (seals & (F_SEAL_FUTURE_WRITE | F_SEAL_WRITE)) !== 0;
  if ((seals & size) !== size || unwritable !== ((grant & RIGHT_W) === 0)) {
    throw peerMisbehaved(`a memfd granted '${lettersOf(grant)}' has the seals ${seals}`);
  }
  const actual = stat(fd, 'sizeBytes');
  if (actual !== unitBytes) {
    throw peerMisbehaved(`a memfd has ${actual} bytes, not the ${unitBytes} of a unit`);
  }
  const allocated = stat(fd, 'allocatedBytes');
  if (allocated < unitBytes) {
    throw peerMisbehaved(`a memfd is sparse: ${allocated} of ${unitBytes} bytes allocated`);
  }
}

/**
 * Seals against all writing, before anything is mapped here. The kernel refuses while anybody has a
 * writable mapping or a page in flight: whoever succeeds knows that there is none.
 */
async function sealAll(fds: Int32Array, pid: number, patience: Patience): Promise<void> {
  for (const fd of fds) {
    for (;;) {
      // Off the main thread: with a page in flight the kernel waits for it, some 160 ms.
      const result = await addSealsAsync(fd, F_SEAL_WRITE);
      if (result >= 0) break;
      if (result !== -EBUSY && (getSeals(fd) & F_SEAL_WRITE) === 0) {
        throw new SyscallError('fcntl(F_ADD_SEALS)', result, `pages of process ${pid}`);
      }
      if (result !== -EBUSY) break;
      if (patience.over) {
        throw new UkshmError(
          'ERR_UKSHM_STILL_WRITABLE',
          `somebody can still write what process ${pid} offered: it must drop 'w' or all, and ` +
            'nobody else may have been granted it',
        );
      }
      await patience.pause();
    }
  }
}

function notOffered(pid: number, address: number): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_NOT_OFFERED',
    `process ${pid} offers this process nothing at ${address}: it was never offered, or not to ` +
      'this process, or it is claimed or cancelled',
  );
}

function refusal(answer: Answer, pid: number, address: number): UkshmError {
  switch (answer.status) {
    case NOT_OFFERED:
      return notOffered(pid, address);
    case LENT:
      return new UkshmError(
        'ERR_UKSHM_LENT',
        `process ${pid} has lent these pages to its kernel: claim them again when they are back`,
      );
    case FAILED:
      return new SyscallError('claim', -answer.detail, `at process ${pid}; its offer may stand`);
    default:
      return peerMisbehaved(`it answered a claim with ${answer.status}`);
  }
}
