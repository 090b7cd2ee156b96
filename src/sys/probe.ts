// What of ukshm's wishes this kernel, user and container grant. Each is tried, not looked up in a
// table of versions: containers forbid what kernels have.
import { readFileSync } from 'node:fs';
import { EFAULT, EINVAL, EPERM } from '../abi/errno.js';
import { F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK } from '../abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGE_2MB, MFD_HUGETLB } from '../abi/memfd.js';
import { __NR_io_uring_setup } from '../abi/syscall.js';
import { addon } from './addon.js';
import { processorCount } from './clock.js';
import {
  addSeals,
  allocate,
  canShareBuffers,
  closeDescriptor,
  memfdCreate,
  truncate,
} from './memory.js';
import { platformName } from './platform.js';
import { memlockLimitBytes, ownPid, ownUid, pidfdOpen } from './process.js';
import {
  accept,
  bind,
  connectSocket,
  peerPidfd,
  refuseDescriptors,
  startListening,
  unixAddress,
  unixSocket,
} from './socket.js';

/** One thing that ukshm can use. */
export interface Feature {
  readonly name: string;
  readonly available: boolean;
  /** What is, or why not; and what it is for. */
  readonly why: string;
  /** How to get it; empty where it is there, or cannot be had. */
  readonly cure: string;
}

const HUGE_PAGE_BYTES = 2097152;
const MEMLOCK_WANTED_BYTES = 67108864;

/** Tries each feature. Changes nothing; takes a few milliseconds. */
export function probe(): Feature[] {
  return [
    feature('addon', true, `loaded for ${platformName()}`, ''),
    sealedMemory(),
    hugePages(),
    lockedMemory(),
    ...sockets(),
    processDescriptors(),
    spinning(),
    ioUring(),
    feature(
      'SharedArrayBuffer over regions',
      canShareBuffers(),
      `Region.create({ shared: true }); this is Node ${process.version}`,
      'use Node 26 or later; or attach the region in each worker',
    ),
  ];
}

function feature(name: string, available: boolean, why: string, cure: string): Feature {
  return { name, available, why, cure: available ? '' : cure };
}

function sealedMemory(): Feature {
  const name = 'sealed shared memory';
  const fd = memfdCreate('ukshm:probe', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return feature(name, false, `memfd_create: errno ${-fd}`, 'allow memfd_create');
  const result = addSeals(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
  closeDescriptor(fd);
  const why = 'each peer maps what the other writes read-only, and the kernel keeps it so';
  const cure = 'use Linux 5.1 or later';
  return feature(name, result >= 0, result >= 0 ? why : `F_ADD_SEALS: errno ${-result}`, cure);
}

function hugePages(): Feature {
  const fd = memfdCreate('ukshm:probe', MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
  let result = fd;
  if (fd >= 0) {
    result = truncate(fd, HUGE_PAGE_BYTES);
    if (result >= 0) result = allocate(fd, HUGE_PAGE_BYTES);
    closeDescriptor(fd);
  }
  const free = /HugePages_Free:\s+(\d+)/.exec(read('/proc/meminfo'))?.[1] ?? '0';
  return feature(
    'huge pages',
    result >= 0,
    `${free} of 2 MiB free: contiguous memory for devices, fewer page-table misses`,
    'as root: echo 64 > /proc/sys/vm/nr_hugepages',
  );
}

function lockedMemory(): Feature {
  const limit = memlockLimitBytes();
  const root = ownUid() === 0;
  const enough = root || limit >= MEMLOCK_WANTED_BYTES;
  const shown = limit > 1e300 ? 'unlimited' : `${Math.round(limit / 1024)} KiB`;
  const whom = root ? `; root is not bound by it` : '';
  return feature(
    'wired memory',
    enough,
    `RLIMIT_MEMLOCK is ${shown}${whom}`,
    `raise it: 'ulimit -l', LimitMEMLOCK= in systemd, --ulimit memlock=-1 in Docker`,
  );
}

function sockets(): Feature[] {
  const name = `ukshm/probe/${ownPid()}/${process.hrtime.bigint()}`;
  const address = unixAddress(name, true);
  const server = unixSocket();
  const client = unixSocket();
  let peer = -1;
  let pidfd = -1;
  try {
    const bound = bind(server, address);
    const works =
      bound === 0 && startListening(server, 1) === 0 && connectSocket(client, address) === 0;
    peer = works ? accept(server) : -1;
    if (peer >= 0) pidfd = peerPidfd(peer);
    const refuses = peer >= 0 && refuseDescriptors(peer) >= 0;
    return [
      feature(
        'abstract socket names',
        works,
        'names that vanish with their process, per network namespace',
        "listen at a path (with '/') instead",
      ),
      feature(
        'pidfd of a socket peer',
        pidfd >= 0,
        'SO_PEERPIDFD: the death of a peer is told at once, safe against reused process ids',
        'use Linux 6.5 or later; until then pidfd_open by number',
      ),
      feature(
        'refusal of descriptors',
        refuses,
        'SO_PASSRIGHTS: a connector cannot even try to pass descriptors to a listener',
        'use Linux 6.16 or later; until then what is passed is dropped unread',
      ),
    ];
  } finally {
    for (const fd of [server, client, peer, pidfd]) if (fd >= 0) closeDescriptor(fd);
  }
}

function processDescriptors(): Feature {
  const fd = pidfdOpen(ownPid());
  if (fd >= 0) closeDescriptor(fd);
  const why =
    fd >= 0 ? 'a peer that dies is noticed even if a child holds its socket' : `errno ${-fd}`;
  return feature('pidfd', fd >= 0, why, 'use Linux 5.3 or later; allow pidfd_open');
}

function spinning(): Feature {
  const count = processorCount();
  return feature(
    'spinning before sleeping',
    count > 1,
    `${count} processor${count === 1 ? '' : 's'}; waking a sleeping one costs some 35 µs`,
    'give the program a second processor',
  );
}

function ioUring(): Feature {
  // No parameters: EFAULT or EINVAL says that the call is there; EPERM that it is forbidden.
  const result = addon.probeSyscall(__NR_io_uring_setup, 1, 0, 0);
  const there = result === -EFAULT || result === -EINVAL;
  const disabled = read('/proc/sys/kernel/io_uring_disabled').trim();
  const why = there
    ? 'disk and sockets by shared rings'
    : result === -EPERM
      ? `forbidden here (kernel.io_uring_disabled is '${disabled}'; else by seccomp)`
      : `errno ${-result}`;
  return feature(
    'io_uring',
    there,
    why,
    'as root: sysctl kernel.io_uring_disabled=0; in Docker: a seccomp profile that allows io_uring',
  );
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
