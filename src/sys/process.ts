// Processes, users and limits. Source: pidfd_open(2), prlimit(2), credentials(7).
import { readFileSync } from 'node:fs';
import { RLIMIT_MEMLOCK } from '../abi/resource.js';
import { addon } from './addon.js';

/** A descriptor that becomes readable when the process ends, or -errno. */
export function pidfdOpen(pid: number): number {
  return addon.pidfdOpen(pid);
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
