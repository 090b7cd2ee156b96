// Connections that were used and may be used again soon, by the process at their other end.
//
// The number of a process is no proof that it is the same one: each connection has its peer's pidfd,
// and is given out only while that process still holds the number.
import { after } from './clock.js';
import { closeDescriptor } from './memory.js';
import { holdsNumber } from './process.js';

const IDLE_MS = 500;
const COUNT_MAX = 16;

/** A connected socket, and a pidfd of who is at its other end (-1: this kernel has none). */
export interface Line {
  readonly fd: number;
  readonly pidfd: number;
}

export function closeLine({ fd, pidfd }: Line): void {
  closeDescriptor(fd);
  if (pidfd >= 0) closeDescriptor(pidfd);
}

interface Idle {
  readonly pid: number;
  readonly line: Line;
  readonly cancel: () => void;
}

export class IdleSockets {
  /** The eldest first. */
  #idle: Idle[] = [];

  /** The youngest connection to this process. */
  take(pid: number): Line | undefined {
    const index = this.#idle.map((one) => one.pid).lastIndexOf(pid);
    const found = this.#idle[index];
    if (found === undefined) return undefined;
    this.#idle.splice(index, 1);
    found.cancel();
    if (holdsNumber(found.line.pidfd)) return found.line;
    closeLine(found.line);
    return undefined;
  }

  /** Keeps a connection for a while; it is closed then. */
  put(pid: number, line: Line): void {
    if (line.pidfd < 0) {
      closeLine(line);
      return;
    }
    if (this.#idle.length >= COUNT_MAX) this.#end(this.#idle[0]);
    const cancel = after(IDLE_MS, () => this.#end(one));
    const one: Idle = { pid, line, cancel };
    this.#idle.push(one);
  }

  #end(one: Idle | undefined): void {
    if (one === undefined) return;
    one.cancel();
    this.#idle = this.#idle.filter((other) => other !== one);
    closeLine(one.line);
  }
}

let shared: IdleSockets | undefined;

/** Those of this environment. */
export function idleSockets(): IdleSockets {
  shared ??= new IdleSockets();
  return shared;
}
