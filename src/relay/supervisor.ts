// Starts the three processes, tells them of each other, waits for their reports, and answers for the
// end: the output gets its name only after all three reported success, and whatever happens before
// that, all three are stopped and nothing is left behind.
//
//     starting ──all ready──▶ flowing ──all finished──▶ published ──▶ left
//         └───────────┬──────────┘
//              a report of failure or loss, an exit, an abort
//                     ▼
//                  stopping (a short grace, in which the others notice by themselves; then SIGKILL)
//
// Prohibited: published → stopping (the output has its name); stopping → anything but the end.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  type FinishedReport,
  type FrameReport,
  type FromChild,
  type Job,
  type OutputFile,
  ROLES,
  type Role,
  type ToChild,
} from './control.js';
import { type Ending, RelayError, reasonOf, rootCause } from './failure.js';
import { discardOutput, planOutput, publishOutput } from './output.js';

/** A system call on a mebibyte costs a hundred times what its hand-over costs us. */
export const CHUNK_BYTES_DEFAULT: number = 1 << 20;
/** Read, but not yet written: some chunks for each of the three, and for the disk. */
export const IN_FLIGHT_BYTES_DEFAULT: number = 8 << 20;
/** Copies of such files only push others out of the page cache. */
const DIRECT_FROM_BYTES = 2 ** 30;
/** How long the others may take to notice by themselves, before they are killed. */
const GRACE_MS = 250;

export interface RelayOptions {
  /** A path, or `-` for standard input. */
  readonly input: string;
  /** A path, `-` for standard output; without it the writer receives and writes nothing. */
  readonly output?: string;
  readonly chunkBytes?: number;
  readonly inFlightBytes?: number;
  readonly spinMicros?: number;
  /** SHA-256 in the examiner; `true` by default. */
  readonly hash?: boolean;
  /** Write past the page cache where that is possible; by default only files of 1 GiB and more. */
  readonly direct?: boolean;
  /** A path to a module whose default export sees each message. */
  readonly examine?: string;
  readonly reportFrames?: boolean;
  /** Stops everything and removes what was written; the reason becomes the error's cause. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (writtenBytes: number, totalBytes: number | undefined) => void;
  /** The least time between two calls of `onProgress`; 0: for each message. */
  readonly progressMs?: number;
  /** All three are connected; the first byte is about to be read. */
  readonly onReady?: (pids: Readonly<Record<Role, number>>) => void;
}

/** A relay that brought its file to the end. Times are from the first byte to the last. */
export interface RelayReport {
  readonly pids: Readonly<Record<Role, number>>;
  readonly bytes: number;
  readonly messages: number;
  readonly chunkBytes: number;
  readonly inFlightBytes: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly cpuSecondsBy: Readonly<Record<Role, number>>;
  /** After the last byte: what it took to have it on the disk. */
  readonly fsyncSeconds: number;
  readonly copiedUserBytes: number;
  readonly copiedKernelBytes: number;
  readonly sha256?: string;
  readonly examined?: unknown;
  readonly frames: Partial<Record<Role, FrameReport>>;
}

/** A relay under way. */
export interface RelayRun {
  readonly pids: Readonly<Record<Role, number>>;
  /** Rejects with a `RelayError`, after all three have ended and the output is gone. */
  readonly done: Promise<RelayReport>;
  readonly output: OutputFile;
  /** The names at which the reader and the writer listen. */
  readonly names: readonly string[];
}

interface Child {
  readonly role: Role;
  readonly process: ChildProcess;
  readonly exited: Promise<void>;
  readonly ending: Ending;
  ready: boolean;
  finished?: FinishedReport;
}

/**
 * Starts a relay.
 *
 * @throws RelayError when the output cannot be what it should; no process was started then.
 */
export function startRelay(options: RelayOptions): RelayRun {
  const output = plan(options.output);
  const children = ROLES.map((role) => startChild(role));
  const pids = Object.fromEntries(
    children.map(({ role, process }) => [role, process.pid ?? 0]),
  ) as Record<Role, number>;
  const secret = randomBytes(8).toString('hex');
  const names = [`ukshm-relay-${secret}-reader`, `ukshm-relay-${secret}-writer`] as const;
  const job: Omit<Job, 'role'> = {
    pids,
    readerName: names[0],
    writerName: names[1],
    input: options.input,
    output,
    chunkBytes: options.chunkBytes ?? CHUNK_BYTES_DEFAULT,
    inFlightBytes: options.inFlightBytes ?? IN_FLIGHT_BYTES_DEFAULT,
    spinMicros: options.spinMicros ?? spinMicros(),
    hash: options.hash ?? true,
    direct: options.direct ?? (regularSize(options.input) ?? 0) >= DIRECT_FROM_BYTES,
    examine: options.examine === undefined ? undefined : resolve(options.examine),
    reportFrame: options.reportFrames ?? false,
    progressMs: options.progressMs ?? 100,
  };
  const done = supervise(children, { job, options, output });
  return { pids, done, output, names };
}

/** Three processes that spin on fewer processors keep each other from running. */
function spinMicros(): number | undefined {
  return availableParallelism() > ROLES.length ? undefined : 0;
}

function plan(output: string | undefined): OutputFile {
  try {
    return planOutput(output);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'ERR_UKSHM_RELAY';
    throw new RelayError(code, `cannot create ${output}: ${reasonOf(error as Error)}`);
  }
}

function startChild(role: Role): Child {
  const script = fileURLToPath(new URL(`./${role}.js`, import.meta.url));
  // What a child prints, such as the user's examiner with console.log, goes to standard error:
  // standard output may be the file itself.
  const stdin = role === 'reader' ? 0 : 'ignore';
  const stdout = role === 'writer' ? 1 : 2;
  const child = spawn(process.execPath, [script], { stdio: [stdin, stdout, 2, 'ipc'] });
  const ending: Ending = { role, pid: child.pid ?? 0 };
  const exited = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      ending.failed = { message: error.message, code: (error as NodeJS.ErrnoException).code };
      if (child.pid === undefined) resolve();
    });
    child.once('exit', () => resolve());
  });
  return { role, process: child, exited, ending, ready: false };
}

interface Supervision {
  readonly job: Omit<Job, 'role'>;
  readonly options: RelayOptions;
  readonly output: OutputFile;
}

async function supervise(
  children: readonly Child[],
  { job, options, output }: Supervision,
): Promise<RelayReport> {
  const discard = (): void => discardOutput(output);
  // An exit in the middle, by whatever way, leaves nothing; the children notice by their IPC.
  process.once('exit', discard);
  const frames: Partial<Record<Role, FrameReport>> = {};
  try {
    await flow(children, job, options, frames);
    publishOutput(output);
    for (const child of children) order(child, { kind: 'leave' });
    await Promise.all(children.map(({ exited }) => exited));
    return reportOf(children, job, frames);
  } catch (error) {
    if (error !== STOPPED) throw supervisorFailed(error, options);
    if (!options.signal?.aborted) await settle(children);
    throw options.signal?.aborted ? aborted(options.signal) : rootCause(endings(children), options);
  } finally {
    for (const { process: child } of children) {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    }
    await Promise.all(children.map(({ exited }) => exited));
    discard();
    process.off('exit', discard);
  }
}

/** Something ended the relay; what it was, the endings and the signal tell. */
const STOPPED = Symbol('stopped');

/** Resolves when all three have finished; rejects with STOPPED as soon as anything goes wrong. */
function flow(
  children: readonly Child[],
  job: Omit<Job, 'role'>,
  options: RelayOptions,
  frames: Partial<Record<Role, FrameReport>>,
): Promise<void> {
  let stop = (): void => {};
  const flowed = new Promise<void>((resolve, reject) => {
    stop = () => reject(STOPPED);
    if (options.signal?.aborted) stop();
    options.signal?.addEventListener('abort', stop);
    const total = regularSize(options.input);
    for (const child of children) {
      child.process.once('exit', (status, signal) => {
        child.ending.exit = { status, signal };
        stop();
      });
      child.process.once('error', stop);
      child.process.on('message', (message: FromChild) => {
        if (message.kind === 'progress') options.onProgress?.(message.bytes, total);
        if (message.kind === 'frame') {
          const { kind: _, ...frame } = message;
          frames[child.role] = frame;
        }
        if (message.kind === 'failed') child.ending.failed = message;
        if (message.kind === 'lost') child.ending.lost = message;
        if (message.kind === 'failed' || message.kind === 'lost') stop();
        if (message.kind === 'ready') {
          child.ready = true;
          if (children.every(({ ready }) => ready)) {
            options.onReady?.(job.pids);
            order(children[0], { kind: 'go' });
          }
        }
        if (message.kind === 'finished') {
          child.finished = message;
          if (children.every(({ finished }) => finished !== undefined)) resolve();
        }
      });
      order(child, { kind: 'start', job: { ...job, role: child.role } });
    }
  });
  return flowed.finally(() => options.signal?.removeEventListener('abort', stop));
}

function order(child: Child, message: ToChild): void {
  // A child that is gone cannot be told; its exit is reported by itself.
  if (child.process.connected) child.process.send(message, () => {});
}

/** Gives the others the time to notice by themselves and to say so. */
async function settle(children: readonly Child[]): Promise<void> {
  const known = ({ ending, process: child }: Child): boolean =>
    ending.failed !== undefined ||
    ending.lost !== undefined ||
    // The exit may be known before the last words are read: these come before the disconnection.
    (!child.connected && (child.exitCode !== null || child.signalCode !== null));
  const until = performance.now() + GRACE_MS;
  while (!children.every(known) && performance.now() < until) await sleep(2);
}

function endings(children: readonly Child[]): Ending[] {
  return children.map(({ ending }) => ending);
}

function aborted(signal: AbortSignal): RelayError {
  return new RelayError('ERR_UKSHM_ABORTED', 'stopped before the file was complete', {
    cause: signal.reason,
  });
}

function supervisorFailed(error: unknown, options: RelayOptions): RelayError {
  const { code = 'ERR_UKSHM_RELAY' } = error as NodeJS.ErrnoException;
  const message = `cannot complete ${options.output}: ${reasonOf(error as Error)}`;
  return new RelayError(code, message, { cause: error });
}

function regularSize(input: string): number | undefined {
  try {
    const there = statSync(input === '-' ? '/proc/self/fd/0' : input);
    return there.isFile() ? there.size : undefined;
  } catch {
    // The reader will say what is wrong with it.
    return undefined;
  }
}

function reportOf(
  children: readonly Child[],
  job: Omit<Job, 'role'>,
  frames: RelayReport['frames'],
): RelayReport {
  const [reader, examiner, writer] = children.map(({ finished }) => finished as FinishedReport);
  return {
    pids: job.pids,
    bytes: writer.bytes,
    messages: writer.messages,
    chunkBytes: job.chunkBytes,
    inFlightBytes: job.inFlightBytes,
    seconds: (writer.lastNs - reader.firstNs) / 1e9,
    cpuSeconds: reader.cpuSeconds + examiner.cpuSeconds + writer.cpuSeconds,
    cpuSecondsBy: {
      reader: reader.cpuSeconds,
      examiner: examiner.cpuSeconds,
      writer: writer.cpuSeconds,
    },
    fsyncSeconds: writer.fsyncSeconds ?? 0,
    copiedUserBytes: 0,
    // read(2) into the chunk; write(2) out of it, unless the disk took the chunk's own pages.
    copiedKernelBytes: 2 * writer.bytes - (writer.directBytes ?? 0),
    sha256: examiner.sha256,
    examined: examiner.examined,
    frames,
  };
}
