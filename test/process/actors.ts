// Starts and ends the processes of the tests in this folder, and looks at what they leave.
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Operations } from './fixtures/actor.js';

/** How long a step may take before its test fails: only a guard against hanging. */
export const PATIENCE_MS = 20_000;
/** A peer's death is known within 100 ms; a test guards at twenty times that. */
export const DEATH_MS = 2_000;

const ACTOR = fixture('actor');
let lastName = 0;

/** Whether every user may read the compiled actor: then it can run as another one. */
export const ACTOR_IS_READABLE: boolean = isReadableByAll(ACTOR);

function isReadableByAll(path: string): boolean {
  const folder = dirname(path);
  const wanted = path === ACTOR ? 0o4 : 0o1;
  return (statSync(path).mode & wanted) !== 0 && (folder === path || isReadableByAll(folder));
}

/** The compiled script of a fixture. */
export function fixture(name: string): string {
  return fileURLToPath(new URL(`./fixtures/${name}.js`, import.meta.url));
}

/** A name for a listener that no other test uses. */
export function uniqueName(label: string): string {
  return `test-${label}-${process.pid}-${++lastName}`;
}

/** What went wrong in an actor, with its code. */
export class ActorError extends Error {
  override readonly name = 'ActorError';
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export interface Exit {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

type Result<Name extends keyof Operations> = Awaited<ReturnType<Operations[Name]>>;

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

interface Reply {
  readonly number: number;
  readonly result?: never;
  readonly error?: { readonly code: string; readonly message: string; readonly stack: string };
}

/** Another process, told by IPC what to do. */
export class Actor {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  readonly ready: Promise<void>;
  readonly #child: ChildProcess;
  readonly #pending: Map<number, Pending> = new Map();
  #last = 0;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    this.exited = new Promise((resolve) => {
      child.once('close', (status, signal) => {
        const error = new Error(`the actor ended (${status ?? signal}) ${stderr}`);
        for (const { reject } of this.#pending.values()) reject(error);
        this.#pending.clear();
        resolve({ status, signal, stderr });
      });
    });
    this.ready = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('message', () => {
        child.on('message', (reply) => this.#onReply(reply as Reply));
        resolve();
      });
      void this.exited.then((exit) => reject(new Error(`it did not start: ${exit.stderr}`)));
    });
  }

  /** Makes the actor do something and answers with its result. */
  call<Name extends keyof Operations>(
    name: Name,
    ...args: Parameters<Operations[Name]>
  ): Promise<Result<Name>> {
    const number = ++this.#last;
    const result = new Promise<Result<Name>>((resolve, reject) => {
      this.#pending.set(number, { resolve, reject });
      this.#child.send({ number, name, args }, (error) => {
        if (error !== null && this.#pending.delete(number)) reject(error);
      });
    });
    // Whoever lets an actor die in the middle of a call need not wait for its answer.
    result.catch(() => {});
    return result;
  }

  /** Returns when a SIGSTOP has stopped it. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (signal === 'SIGSTOP') stopPid(this.pid);
    else this.#child.kill(signal);
  }

  #onReply({ number, result, error }: Reply): void {
    const pending = this.#pending.get(number);
    this.#pending.delete(number);
    if (error === undefined) pending?.resolve(result as never);
    else pending?.reject(new ActorError(error.code, `${error.message}\n${error.stack}`));
  }
}

export interface ActorOptions {
  /** Runs as this user. */
  readonly uid?: number;
  /** Watch how late timers are (`worstTurn`). */
  readonly watchTurns?: boolean;
}

/** Whoever can be asked to clean up at its end: a test, or a suite by `cleanup`. */
export interface Owner {
  after(action: () => unknown): void;
}

/** For actors that live as long as a suite: `end` belongs into its `after`. */
export function cleanup(): Owner & { end(): Promise<void> } {
  const actions: (() => unknown)[] = [];
  const end = async (): Promise<void> => {
    for (const action of actions.splice(0).reverse()) await action();
  };
  return { after: (action) => void actions.push(action), end };
}

/** Starts an actor; it is killed at the end of the test. */
export async function startActor(context: Owner, options: ActorOptions = {}): Promise<Actor> {
  const { uid, watchTurns = false } = options;
  const child = spawn(process.execPath, [ACTOR, ...(watchTurns ? ['--watch-turns'] : [])], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    serialization: 'advanced',
    uid,
    gid: uid,
  });
  const actor = new Actor(child);
  context.after(async () => {
    child.kill('SIGKILL');
    await actor.exited;
  });
  await actor.ready;
  return actor;
}

/** The code of the error with which `work` fails. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    const { code, name } = error as { code?: unknown; name: string };
    return typeof code === 'string' ? code : name;
  }
  return 'none';
}

/** Waits until `look` answers `true`. */
export async function until(
  what: string,
  look: () => boolean | Promise<boolean>,
  patienceMs: number = PATIENCE_MS,
): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while (!(await look())) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(10);
  }
}

/** Milliseconds since the epoch, fractions included: the same clock in all processes. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}

/** Ends one process by its id, if it is still there. */
export function killPid(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

/**
 * Stops a process, and returns when it stands still: until its threads have heard of the signal, those
 * that wait for something else may still answer it.
 */
export function stopPid(pid: number): void {
  process.kill(pid, 'SIGSTOP');
  const deadline = performance.now() + PATIENCE_MS;
  while (!isStopped(pid)) {
    if (performance.now() > deadline) throw new Error(`process ${pid} does not stop`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
}

function isStopped(pid: number): boolean {
  const isStill = (thread: string): boolean => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
  };
  try {
    return readdirSync(`/proc/${pid}/task`).every(isStill);
  } catch {
    // A thread that ends meanwhile.
    return false;
  }
}

/** Lines of the kernel's table of Unix sockets that hold `text`. */
export function boundSockets(text: string): string[] {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .filter((line) => line.includes(text));
}

/** What lies in /dev/shm. */
export function sharedFiles(): string[] {
  return readdirSync('/dev/shm').sort();
}
