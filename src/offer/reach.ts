// Finds the thread that answers for a process, and makes sure that it is that process's.
//
// Abstract names are first come, first served: anybody may sit at `ukshm-offer/1/<pid>`. So who is
// behind a socket is asked of the kernel, and where somebody else is, all names of ours are tried.
// The same finds a process that calls itself by the number it has in another pid namespace.
import { readFileSync } from 'node:fs';
import { EAGAIN, ECONNREFUSED } from '../abi/errno.js';
import { UkshmError } from '../core/errors.js';
import { afterAlive, nowMs } from '../sys/clock.js';
import { closeLine, idleSockets, type Line } from '../sys/idle-sockets.js';
import { closeDescriptor } from '../sys/memory.js';
import { holdsNumber, ownPid, pidfdOpen } from '../sys/process.js';
import type { Deadline } from '../sys/ready.js';
import {
  connectSocket,
  packetSocket,
  peerCredentials,
  peerPidfd,
  unixAddress,
} from '../sys/socket.js';
import { noProcess } from './offer.js';

const PREFIX = 'ukshm-offer/1/';
/** `Flags` of a listening socket: __SO_ACCEPTCON. */
const LISTENING = '00010000';
const PAUSE_MS_MAX = 16;

/** Time that is running out. */
export class Patience {
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  readonly #untilMs: number;
  #pauseMs = 0.5;

  constructor(what: string, timeoutMs: number, signal: AbortSignal | undefined) {
    this.what = what;
    this.signal = signal;
    this.#untilMs = nowMs() + timeoutMs;
  }

  get over(): boolean {
    return nowMs() >= this.#untilMs;
  }

  /** For one wait: until the same moment. */
  get deadline(): Deadline {
    const timeoutMs = Math.max(1, Math.ceil(this.#untilMs - nowMs()));
    return { what: this.what, timeoutMs, signal: this.signal };
  }

  /** Waits a little, longer each time. @throws the signal's reason. */
  async pause(): Promise<void> {
    this.signal?.throwIfAborted();
    this.#pauseMs = Math.min(PAUSE_MS_MAX, this.#pauseMs * 2);
    await new Promise<void>((resolve, reject) => {
      const aborted = (): void => {
        cancel();
        reject(this.signal?.reason);
      };
      const cancel = afterAlive(this.#pauseMs, () => {
        this.signal?.removeEventListener('abort', aborted);
        resolve();
      });
      this.signal?.addEventListener('abort', aborted, { once: true });
    });
  }
}

/** How an attempt to connect ended: connected, nobody there, somebody else, or a full queue. */
type Attempt = Line | 'nobody' | 'another' | 'busy';

/**
 * A connection to the answering thread of process `pid`: one that was used before, if there is one.
 *
 * @returns the caller's; or `undefined`: the process has no such thread.
 * @throws UkshmError `ERR_UKSHM_NO_PROCESS`, `ERR_UKSHM_TIMEOUT`; the signal's reason.
 */
export async function reach(pid: number, patience: Patience): Promise<Line | undefined> {
  const idle = idleSockets().take(pid);
  if (idle !== undefined) return idle;
  for (;;) {
    const first = attempt(`${PREFIX}${pid}`, pid);
    if (typeof first === 'object') return first;
    let busy = first === 'busy';
    if (!busy) {
      for (const name of answeringNames()) {
        const result = attempt(name, pid);
        if (typeof result === 'object') return result;
        busy ||= result === 'busy';
      }
    }
    if (!busy) {
      checkProcess(pid);
      return undefined;
    }
    if (patience.over) {
      const text = `${patience.what}: too many others ask the same process; try again`;
      throw new UkshmError('ERR_UKSHM_TIMEOUT', text);
    }
    await patience.pause();
  }
}

/** Sockets at which processes answer, as far as this network namespace has them. */
export function answeringNames(): string[] {
  const names: string[] = [];
  for (const line of readFileSync('/proc/net/unix', 'latin1').split('\n')) {
    const at = line.indexOf(`@${PREFIX}`);
    if (at >= 0 && line.includes(` ${LISTENING} `)) names.push(line.slice(at + 1));
  }
  return names;
}

/** A connection to one of those names, and who is behind it; `undefined`: nobody, or too busy. */
export function reachName(name: string): { line: Line; pid: number } | undefined {
  const fd = packetSocket();
  if (connectSocket(fd, unixAddress(name, true)) === 0) {
    const { pid, pidfd } = whoAnswers(fd);
    if (pid > 0 && pid !== ownPid()) return { line: { fd, pidfd }, pid };
    if (pidfd >= 0) closeDescriptor(pidfd);
  }
  closeDescriptor(fd);
  return undefined;
}

function attempt(name: string, pid: number): Attempt {
  const fd = packetSocket();
  const result = connectSocket(fd, unixAddress(name, true));
  if (result === 0) {
    const found = whoAnswers(fd);
    const line = { fd, pidfd: found.pidfd };
    if (found.pid === pid) return line;
    closeLine(line);
    return 'another';
  }
  closeDescriptor(fd);
  if (result === -EAGAIN) return 'busy';
  return result === -ECONNREFUSED ? 'nobody' : 'another';
}

/**
 * The process behind a connected socket; 0 where it cannot be told. Its number is that of who
 * called listen(2), which may have ended since and left the socket to a child: only while that one
 * holds the number, the number is its own.
 */
function whoAnswers(fd: number): { pid: number; pidfd: number } {
  const { pid } = peerCredentials(fd);
  // Before Linux 6.5 there is none; the number alone must do.
  const pidfd = Math.max(-1, peerPidfd(fd));
  return { pid: pidfd < 0 || holdsNumber(pidfd) ? pid : 0, pidfd };
}

function checkProcess(pid: number): void {
  const pidfd = pidfdOpen(pid);
  if (pidfd < 0) throw noProcess(pid);
  closeDescriptor(pidfd);
}
