// Processes, users and limits. Source: pidfd_open(2), prlimit(2), credentials(7).
import { readFileSync } from 'node:fs';
import { ESRCH } from '../abi/errno.js';
import { RLIMIT_MEMLOCK } from '../abi/resource.js';
import { __NR_pidfd_send_signal } from '../abi/syscall.js';
import { addon } from './addon.js';

/** A descriptor that becomes readable when the process ends, or -errno. */
export function pidfdOpen(pid: number): number {
  return addon.pidfdOpen(pid);
}

/** Whether the process of a pidfd still holds its number: it lives, or nobody has waited for it. */
export function holdsNumber(pidfd: number): boolean {
  return addon.probeSyscall(__NR_pidfd_send_signal, pidfd, 0, 0) !== -ESRCH;
}

/** RLIMIT_MEMLOCK in bytes; 1e308 where there is none. */
export function memlockLimitBytes(): number {
  return addon.getrlimit(RLIMIT_MEMLOCK);
}

export function ownPid(): number {
  return process.pid;
}

/** The effective user id: what SO_PEERCRED reports to peers. */
export function ownUid(): number {
  return process.geteuid?.() ?? 0;
}

/** The id that stands for every user that a user namespace does not map: equal to nobody. */
export function overflowUid(): number {
  try {
    return Number(readFileSync('/proc/sys/kernel/overflowuid', 'utf8'));
  } catch {
    return 65534;
  }
}
