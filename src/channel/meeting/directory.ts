// All listeners on this machine, as far as this process may see them.
//
// The kernel lists every bound Unix socket in /proc/net/unix (of this network namespace); those
// whose abstract name is ours, and socket files whose name ends in '.ukshm', are asked themselves.
import { readFileSync } from 'node:fs';
import { UkshmError } from '../../core/errors.js';
import { ABSTRACT_PREFIX, type Address, addressOfName } from './address.js';
import type { ListenerInfo } from './listener.js';
import { askInfo } from './visits.js';

export type { ListenerInfo };

const ANSWER_TIMEOUT_MS = 1000;
/** `Flags` of a listening socket: __SO_ACCEPTCON. */
const LISTENING = '00010000';
const PATH_SUFFIX = '.ukshm';

/** Listeners, sorted by name. Those that do not answer, or not to us, carry a note. */
export async function listListeners(): Promise<ListenerInfo[]> {
  const found = new Map<string, { address: Address; uid: number }>();
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const [, , , flags, , , , path] = line.trim().split(/\s+/);
    if (flags !== LISTENING || path === undefined) continue;
    if (path.startsWith(`@${ABSTRACT_PREFIX}`)) {
      const [uid = '', name = ''] = path.slice(1 + ABSTRACT_PREFIX.length).split('/');
      const entry = named(name, Number(uid));
      if (entry !== undefined) found.set(path, entry);
    } else if (path.startsWith('/') && path.endsWith(PATH_SUFFIX)) {
      const entry = named(path, -1);
      if (entry !== undefined) found.set(path, entry);
    }
  }
  const infos = await Promise.all([...found.values()].map(ask));
  return infos.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function named(name: string, uid: number): { address: Address; uid: number } | undefined {
  try {
    return { address: addressOfName(name, uid), uid };
  } catch {
    // Not a name that ukshm gives: somebody else's socket.
    return undefined;
  }
}

async function ask({ address, uid }: { address: Address; uid: number }): Promise<ListenerInfo> {
  const kind = address.abstract ? 'abstract' : 'path';
  const known = { name: address.name, kind, pid: 0, uid, channels: [] } as const;
  try {
    const told: unknown = JSON.parse(await askInfo(address, ANSWER_TIMEOUT_MS));
    return isInfo(told)
      ? { ...known, pid: told.pid, uid: told.uid, channels: told.channels }
      : { ...known, note: 'answered something else' };
  } catch (error) {
    const note = error instanceof UkshmError ? noteFor(error) : 'answered something else';
    return { ...known, note };
  }
}

/** Whoever listens there may say what it likes. */
function isInfo(told: unknown): told is ListenerInfo {
  const { pid, uid, channels } = (told ?? {}) as Partial<ListenerInfo>;
  const counts = (...values: unknown[]): boolean =>
    values.every((value) => Number.isSafeInteger(value) && (value as number) >= 0);
  return (
    counts(pid, uid) &&
    Array.isArray(channels) &&
    channels.every((one) => counts(one?.peerPid, one?.sharedBytes, one?.bytesInUse))
  );
}

function noteFor(error: UkshmError): string {
  if (error.code === 'ERR_UKSHM_ACCESS_DENIED') return 'does not admit us';
  if (error.code === 'ERR_UKSHM_TIMEOUT') return 'does not answer: busy or stopped';
  return error.message;
}
