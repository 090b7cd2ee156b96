// `fork` as Node's, with shared memory for large parts of messages: the parent's side. Loads no
// addon before the first of them was seen.
//
// The child's NODE_OPTIONS get one word more, a preload, which takes it out again before any of the
// program runs: its arguments, `execArgv` and environment are what they would be. (`--import` would
// have the program loaded as a module, and stand in `execArgv`.)
import * as node from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Control, Endpoint, type Send, type Target } from './endpoint.js';

type Environment = Readonly<Record<string, string | undefined>>;

const PRELOAD: string = fileURLToPath(new URL('./preload.cjs', import.meta.url));
/** With these a child may not read the preload, or not load the addon, or runs no preload. */
const RESTRICTED = /--(experimental-)?(permission|policy)|--no-addons|--(build-)?snapshot/;
/** A child that did not come so often is asked no more. */
const ATTEMPTS_MAX = 3;

/**
 * As `fork` of `node:child_process`, with the same arguments, result, events and errors. A Buffer,
 * typed array, DataView or ArrayBuffer of 128 KiB or more, anywhere in a message of either side, goes
 * through shared memory; all else goes through Node's own pipe, and everything does where the child
 * is not this Node or may not load ukshm.
 *
 * @returns the child, as Node made it.
 * @throws what Node's own `fork` throws.
 */
export const fork: typeof node.fork = (
  modulePath: string | URL,
  ...rest: [unknown?, unknown?]
): node.ChildProcess => {
  const index = isRecord(rest[0]) ? 0 : 1;
  const given = rest[index] ?? {};
  const options: node.ForkOptions = isRecord(given) ? { ...given } : {};
  const env = isRecord(given) ? environmentWithPreload(options) : undefined;
  if (env === undefined) return nodeFork(modulePath, ...rest);
  const args = index === 0 ? [] : rest[0];
  const child = nodeFork(modulePath, args, { ...options, env });
  new Companion(child, options.serialization === 'advanced');
  return child;
};

const nodeFork = node.fork as (modulePath: string | URL, ...rest: unknown[]) => node.ChildProcess;

/** The environment of the child with the preload in it; `undefined`: it gets none. */
function environmentWithPreload(options: node.ForkOptions): Environment | undefined {
  const { execPath = process.execPath, execArgv = process.execArgv, env = process.env } = options;
  const asAnother =
    isAnother(options.uid, process.geteuid) || isAnother(options.gid, process.getegid);
  if (process.platform !== 'linux' || execPath !== process.execPath || asAnother) return undefined;
  if (!isRecord(env) || !Array.isArray(execArgv)) return undefined;
  const before = env.NODE_OPTIONS;
  if (RESTRICTED.test([...execArgv, before].join(' ')) || !existsSync(PRELOAD)) return undefined;
  const preload = `--require="${PRELOAD.replace(/["\\]/g, '\\$&')}"`;
  const copy: Record<string, string | undefined> = {};
  // As Node does it, inherited ones included.
  for (const name in env) copy[name] = env[name];
  copy.NODE_OPTIONS = before === undefined ? preload : `${preload} ${before}`;
  return copy;
}

/** Another user may not be able to read the preload. */
function isAnother(id: number | undefined, own: (() => number) | undefined): boolean {
  return id !== undefined && id !== own?.call(process);
}

function isRecord(value: unknown): value is Record<string, never> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Sees to it that what a child and this side send each other can take the faster way. */
class Companion {
  readonly #child: node.ChildProcess;
  readonly #endpoint: Endpoint;
  readonly #ended: AbortController = new AbortController();
  /** For each direction, down first: what is under way, and how often it was tried. */
  readonly #attempts: [Attempt, Attempt] = [new Attempt(), new Attempt()];

  constructor(child: node.ChildProcess, advanced: boolean) {
    this.#child = child;
    this.#endpoint = new Endpoint(child as unknown as Target, child.send as Send, advanced, {
      onLargeSent: (lengthBytes) => this.#invite(true, lengthBytes),
      onLargeReceived: (lengthBytes) => this.#invite(false, lengthBytes),
      onControl: (message) => this.#onControl(message),
      onDisconnect: () => this.#end(),
    });
    child.send = this.#endpoint.send;
    this.#listen();
  }

  #listen(): void {
    const child = this.#child as unknown as Target;
    const { emit } = child;
    const value = (event: string, ...args: unknown[]): boolean =>
      this.#endpoint.onEvent(event, args) && Reflect.apply(emit, child, [event, ...args]);
    // Not enumerable, like the method that it stands before.
    Object.defineProperty(child, 'emit', { value, writable: true, configurable: true });
  }

  #invite(down: boolean, lengthBytes: number): void {
    const attempt = this.#attempts[down ? 0 : 1];
    const childPid = this.#child.pid;
    if (childPid === undefined || this.#ended.signal.aborted) return;
    if (lengthBytes <= this.#endpoint.roomBytes(down) || !attempt.begin()) return;
    const signal = AbortSignal.any([this.#ended.signal, attempt.failed.signal]);
    const meeting = { endpoint: this.#endpoint, childPid, down, lengthBytes, signal };
    import('./meet.js')
      .then(({ invite }) => invite(meeting))
      .then(() => attempt.succeed())
      // Without the addon, without memory, or with a child that cannot: all goes Node's own way.
      .catch(() => {})
      .finally(() => attempt.end());
  }

  #onControl(message: Control): void {
    const { failed, wish } = message;
    if (typeof wish === 'number') this.#invite(false, wish);
    if (failed !== undefined) for (const attempt of this.#attempts) attempt.failed.abort();
  }

  #end(): void {
    this.#ended.abort();
    this.#endpoint.close();
  }
}

class Attempt {
  failed: AbortController = new AbortController();
  #count = 0;
  #underWay = false;

  /** @returns `false` when one is under way, or too many were in vain. */
  begin(): boolean {
    if (this.#underWay || this.#count === ATTEMPTS_MAX) return false;
    this.#underWay = true;
    this.#count++;
    this.failed = new AbortController();
    return true;
  }

  succeed(): void {
    this.#count = 0;
  }

  end(): void {
    this.#underWay = false;
  }
}
