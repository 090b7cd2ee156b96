// What the tests of the relay and of the command line share: running the command line as a user
// does, and looking for what it may have left.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The compiled command line. */
export const MAIN: string = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** How long a step may take before the test gives up: only a guard against hanging. */
const PATIENCE_MS = 20_000;

/** A command that runs, and what it has printed so far. */
export interface Running {
  readonly child: ChildProcess;
  /** Resolves when it has ended and all of its output is there. */
  readonly ended: Promise<Ended>;
  stderr(): string;
}

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: Uint8Array;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly detached?: boolean;
  readonly main?: string;
  readonly uid?: number;
}

/** Starts `ukshm` with these arguments. */
export function start(args: readonly string[], options: RunOptions = {}): Running {
  const { cwd, detached, env = process.env, main = MAIN, uid } = options;
  const child = spawn(process.execPath, [main, ...args], { cwd, detached, env, uid, gid: uid });
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout.on('data', (piece: Buffer) => stdout.push(piece));
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    stderr += piece;
  });
  child.stdin.on('error', () => {});
  child.stdin.end(options.input);
  const timer = setTimeout(() => child.kill('SIGKILL'), 3 * PATIENCE_MS);
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, stdout: Buffer.concat(stdout), stderr });
    });
  });
  return { child, ended, stderr: () => stderr };
}

/** Runs `ukshm` to its end. */
export function ukshm(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return start(args, options).ended;
}

/** A folder that is removed after the test. */
export function folderFor(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'ukshm-test-'));
  chmodSync(folder, 0o755);
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes that no compression or mistake repeats. */
export function noise(lengthBytes: number): Buffer {
  return randomBytes(lengthBytes);
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export function makeFifo(path: string): void {
  execFileSync('mkfifo', [path]);
}

/** Waits until `look` answers something. */
export async function until<Seen>(
  what: string,
  look: () => Seen | undefined | false,
): Promise<Seen> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const seen = look();
    if (seen !== undefined && seen !== false) return seen;
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(5);
  }
}

export type Pids = Record<'reader' | 'examiner' | 'writer', number>;

/** The three processes of a running relay, as /proc shows them. */
export function processesOf(supervisor: number): Promise<Pids> {
  return until('the three processes', () => {
    const found: Partial<Pids> = {};
    for (const pid of childrenOf(supervisor)) {
      const command = contentOf(`/proc/${pid}/cmdline`);
      for (const role of ['reader', 'examiner', 'writer'] as const) {
        if (command.includes(`relay/${role}.js`)) found[role] = pid;
      }
    }
    return found.reader && found.examiner && found.writer ? (found as Pids) : undefined;
  });
}

function childrenOf(pid: number): number[] {
  const text = contentOf(`/proc/${pid}/task/${pid}/children`);
  return text.split(' ').filter(Boolean).map(Number);
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Bytes in the one unfinished output of a folder; `undefined`: there is none. */
export function temporaryBytes(folder: string): number | undefined {
  const name = readdirSync(folder).find((entry) => entry.includes('.ukshm-'));
  return name === undefined ? undefined : statSync(join(folder, name)).size;
}

/** Whether a process is there and not merely waiting to be reaped. */
export function isAlive(pid: number): boolean {
  if (!existsSync(`/proc/${pid}`)) return false;
  return !/^State:\s+Z/m.test(contentOf(`/proc/${pid}/status`));
}

/** Names of Unix sockets that these processes hold, in the kernel's words. */
export function namesOf(pids: Pids): string[] {
  const sockets = new Set(Object.values(pids).flatMap(socketsOf));
  const lines = contentOf('/proc/net/unix').split('\n');
  const fields = lines.map((line) => line.trim().split(/\s+/));
  const held = fields.filter(([, , , , , , inode]) => sockets.has(`socket:[${inode}]`));
  return [...new Set(held.map((field) => field[7]))].filter((name) => name !== undefined);
}

function socketsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).map((fd) => {
    try {
      return readlinkSync(join(folder, fd));
    } catch {
      return '';
    }
  });
}

/** Whether a socket of that name is bound, or connected to one that is. */
export function nameIsInUse(name: string): boolean {
  return contentOf('/proc/net/unix').includes(name);
}

/** All processes below one, by id with their command lines. Looks at no stranger: that may block. */
export function descendantsOf(pid: number): Map<number, string> {
  const found = new Map<number, string>();
  for (const child of childrenOf(pid)) {
    found.set(child, contentOf(`/proc/${child}/cmdline`));
    for (const [below, command] of descendantsOf(child)) found.set(below, command);
  }
  return found;
}
