// A source that lies: it sits at its own name and answers claims as it likes.
import { F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK } from '../../src/abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../src/abi/memfd.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../src/abi/mman.js';
import { ANSWER_BYTES, CHALLENGE, DONE, GRANT, NOT_OFFERED } from '../../src/offer/wire.js';
import {
  addSeals,
  allocate,
  closeDescriptor,
  map,
  memfdCreate,
  truncate,
} from '../../src/sys/memory.js';
import {
  accept,
  bind,
  packetSocket,
  receive,
  sendDescriptors,
  startListening,
  unixAddress,
} from '../../src/sys/socket.js';

const UNIT = 65536;
const SIZE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW;

/** In what it lies. */
export const LIES = [
  'garbage',
  'short',
  'unknown status',
  'too few descriptors',
  'too many descriptors',
  'no memfd',
  'no seals',
  'writable after all',
  'not writable after all',
  'other size',
  'sparse',
  'odd unit',
  'huge unit',
  'no units',
  'odd rights',
  'challenges for ever',
  'done with garbage',
] as const;
export type Lie = (typeof LIES)[number] | 'hangs up after the grant' | 'silent' | 'keeps a mapping';

/** A packet that answers a claim. */
export function packet(
  status: number,
  unitBytes: number,
  units: number,
  grant: number,
): Uint8Array {
  const bytes = new Uint8Array(ANSWER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x464f4b55, true);
  view.setUint32(4, status, true);
  view.setUint32(16, unitBytes >>> 0, true);
  view.setUint32(20, Math.floor(unitBytes / 2 ** 32), true);
  view.setUint32(24, units, true);
  view.setUint32(28, grant, true);
  return bytes;
}

function unit(seals: number, sizeBytes: number, full: boolean): number {
  const fd = memfdCreate('ukshm:lie', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  truncate(fd, sizeBytes);
  if (full) allocate(fd, sizeBytes);
  addSeals(fd, seals);
  return fd;
}

/** Descriptors, and the GRANT that goes with them. */
function grantFor(lie: Lie): { fds: number[]; grant: Uint8Array } {
  const good = (): number => unit(SIZE_SEALS, UNIT, true);
  const plain = packet(GRANT, UNIT, 1, 3);
  switch (lie) {
    case 'too few descriptors':
      return { fds: [good()], grant: packet(GRANT, UNIT, 2, 3) };
    case 'too many descriptors':
      return { fds: [good(), good()], grant: plain };
    case 'keeps a mapping': {
      const fd = good();
      map(0, UNIT, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
      return { fds: [fd], grant: plain };
    }
    case 'no memfd':
      return { fds: [packetSocket()], grant: plain };
    case 'no seals':
      return { fds: [unit(0, UNIT, true)], grant: plain };
    case 'writable after all':
      return { fds: [good()], grant: packet(GRANT, UNIT, 1, 1) };
    case 'not writable after all':
      return { fds: [unit(SIZE_SEALS | F_SEAL_FUTURE_WRITE, UNIT, true)], grant: plain };
    case 'other size':
      return { fds: [unit(SIZE_SEALS, 2 * UNIT, true)], grant: plain };
    case 'sparse':
      return { fds: [unit(SIZE_SEALS, UNIT, false)], grant: plain };
    case 'odd unit':
      return { fds: [good()], grant: packet(GRANT, UNIT + 1, 1, 3) };
    case 'huge unit':
      return { fds: [good()], grant: packet(GRANT, 2 ** 60, 1, 3) };
    case 'no units':
      return { fds: [], grant: packet(GRANT, UNIT, 0, 3) };
    case 'odd rights':
      return { fds: [good()], grant: packet(GRANT, UNIT, 1, 2) };
    default:
      return { fds: [good()], grant: plain };
  }
}

function answer(fd: number, lie: Lie): void {
  const say = (bytes: Uint8Array, fds: number[] = []): number =>
    sendDescriptors(fd, bytes, new Int32Array(fds));
  if (lie === 'silent') return;
  if (lie === 'garbage') say(new Uint8Array(ANSWER_BYTES).fill(0xff));
  else if (lie === 'short') say(new Uint8Array(7));
  else if (lie === 'unknown status') say(packet(99, UNIT, 1, 3));
  else if (lie === 'challenges for ever') say(packet(CHALLENGE, 0, 0, 0));
  else {
    const { fds, grant } = grantFor(lie);
    say(grant, fds);
    for (const one of fds) closeDescriptor(one);
    if (lie === 'hangs up after the grant') closeDescriptor(fd);
    else if (lie === 'done with garbage') say(packet(NOT_OFFERED + 40, 0, 0, 0));
    else say(packet(DONE, 0, 0, 0));
  }
}

/** Answers all that ask, from now on; how to end it. */
export function pretend(pid: number, lie: Lie): () => void {
  const listener = packetSocket();
  if (bind(listener, unixAddress(`ukshm-offer/1/${pid}`, true)) < 0) throw new Error('taken');
  startListening(listener, 64);
  const peers: number[] = [];
  const timer = setInterval(() => {
    for (let fd = accept(listener); fd >= 0; fd = accept(listener)) peers.push(fd);
    for (const fd of peers) if (receive(fd, new Uint8Array(64)) > 0) answer(fd, lie);
  }, 1);
  return () => {
    clearInterval(timer);
    closeDescriptor(listener);
  };
}
