// What `ukshm relay <input>` without an output shows: the job through shared memory and, in turn,
// in the ways that Node has; that all three processes see the same page; and what happens when the
// middle one is killed. It only measures and checks: the command line draws.
import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Comparison, ComparisonJob } from './baselines/comparison.js';
import { runOverPipes } from './baselines/pipes.js';
import { runOverSend } from './baselines/send.js';
import { type FrameReport, nowNs, type Role } from './control.js';
import { RelayError, reasonOf } from './failure.js';
import { type RelayOptions, type RelayReport, startRelay } from './supervisor.js';

/** Each way does the job so often, in turn, and the median run is shown. */
export const ROUNDS_DEFAULT = 3;
/** No further round is begun after this. */
const ROUNDS_UNTIL_MS = 8000;
/** The sizes at which each of the other ways is fastest. */
const STREAM_CHUNK_BYTES = 1 << 20;
const BLOCKING_CHUNK_BYTES = 1 << 16;
const SEND_CHUNK_BYTES = 1 << 20;

/** Where in the file the examiner is killed: what was written, of the whole. */
const KILL_AT_SHARES: readonly number[] = [0.5, 0.25, 0];

export type Way = 'ukshm' | 'streams' | 'send' | 'blocking';
export const WAYS: readonly Way[] = ['ukshm', 'streams', 'send', 'blocking'];

/** One row of the table: the median of its runs. */
export interface Row extends Comparison {
  readonly way: Way;
  readonly gigabytesPerSecond: number;
  /** GB/s of all runs, in order. */
  readonly runs: readonly number[];
}

/** The relay whose examiner is killed in mid-file. */
export interface Kill {
  readonly pids: Readonly<Record<Role, number>>;
  readonly killed: number;
  readonly atBytes: number;
  readonly totalBytes: number;
  /** Milliseconds from the signal until each of the others knew. */
  readonly noticedMs: Partial<Record<Role, number>>;
  /** Until all three processes were gone and the supervisor had reported. */
  readonly goneMs: number;
  readonly error: string;
  /** What was found afterwards; empty: nothing. */
  readonly left: readonly string[];
}

export interface Digests {
  readonly input: string;
  readonly output: string;
  readonly byWay: Partial<Record<Way, string>>;
  readonly agree: boolean;
}

/** What happened so far, as it happens. */
export interface Demonstration {
  readonly onStart?: (pids: Readonly<Record<Role, number>>) => void;
  readonly onFrames?: (frames: Partial<Record<Role, FrameReport>>, report: RelayReport) => void;
  readonly onRun?: (way: Way, round: number, rounds: number) => void;
  readonly onTable?: (rows: readonly Row[]) => void;
  /** `undefined`: the file was through before the signal came. */
  readonly onKill?: (kill: Kill | undefined) => void;
  readonly onDigests?: (digests: Digests) => void;
}

/** Everything that was shown. */
export interface DemonstrationReport {
  readonly input: string;
  readonly bytes: number;
  readonly pids: Readonly<Record<Role, number>>;
  readonly frames: Partial<Record<Role, FrameReport>>;
  readonly rows: readonly Row[];
  readonly kill?: Kill;
  readonly digests: Digests;
}

/**
 * Runs the demonstration; its outputs lie in a folder of their own below the system's folder for
 * temporary files and are removed, whatever happens.
 *
 * @param options - as for a relay; `output` is not used.
 * @param rounds - how often each way does the job, at least 1; less if they are long.
 * @throws RelayError
 */
export async function demonstrate(
  options: RelayOptions,
  show: Demonstration,
  rounds: number = ROUNDS_DEFAULT,
): Promise<DemonstrationReport> {
  // Also brings the file into the page cache, for all ways alike.
  const inputDigest = await digestOf(options.input, options.signal);
  const folder = mkdtempSync(join(tmpdir(), 'ukshm-relay-'));
  const clean = (): void => rmSync(folder, { recursive: true, force: true });
  process.once('exit', clean);
  try {
    const output = join(folder, 'output');
    const first = await firstRun({ ...options, output }, show);
    const outputDigest = await digestOf(output, options.signal);
    const rows = await compare({ ...options, output }, rounds, show);
    show.onTable?.(rows);
    const kill = await killInMidFile({ ...options, output }, folder);
    show.onKill?.(kill);
    const digests = judge(inputDigest, outputDigest, first, rows);
    show.onDigests?.(digests);
    const { pids, frames, bytes } = first;
    return { input: options.input, bytes, pids, frames, rows, kill, digests };
  } finally {
    clean();
    process.off('exit', clean);
  }
}

async function firstRun(options: RelayOptions, show: Demonstration): Promise<RelayReport> {
  const run = startRelay({ ...options, reportFrames: true, onReady: show.onStart });
  const report = await run.done;
  show.onFrames?.(report.frames, report);
  return report;
}

async function compare(
  options: RelayOptions & { output: string },
  rounds: number,
  show: Demonstration,
): Promise<Row[]> {
  const runs = new Map<Way, Comparison[]>(WAYS.map((way) => [way, []]));
  const until = performance.now() + ROUNDS_UNTIL_MS;
  for (let round = 1; round === 1 || (round <= rounds && performance.now() < until); round++) {
    for (const way of WAYS) {
      show.onRun?.(way, round, rounds);
      rmSync(options.output, { force: true });
      runs.get(way)?.push(await runOnce(way, options));
    }
  }
  rmSync(options.output, { force: true });
  return WAYS.map((way) => rowOf(way, runs.get(way) ?? []));
}

/** Does the job once in one of the ways; also for benchmarks. */
export async function runOnce(
  way: Way,
  options: RelayOptions & { output: string },
): Promise<Comparison> {
  if (way === 'ukshm') return startRelay(options).done;
  const { input, output, hash = true, signal } = options;
  const job = (chunkBytes: number): ComparisonJob => ({ input, output, hash, chunkBytes });
  if (way === 'streams') return runOverPipes(job(STREAM_CHUNK_BYTES), 'streams', signal);
  if (way === 'blocking') return runOverPipes(job(BLOCKING_CHUNK_BYTES), 'blocking', signal);
  return runOverSend(job(SEND_CHUNK_BYTES), signal);
}

function rowOf(way: Way, runs: readonly Comparison[]): Row {
  const sorted = [...runs].sort((a, b) => a.seconds - b.seconds);
  const { bytes, seconds, cpuSeconds, fsyncSeconds, sha256, ...rest } = sorted[sorted.length >> 1];
  const { copiedUserBytes, copiedKernelBytes } = rest;
  return {
    ...{ way, bytes, seconds, cpuSeconds, fsyncSeconds, sha256 },
    ...{ copiedUserBytes, copiedKernelBytes },
    gigabytesPerSecond: bytes / seconds / 1e9,
    runs: runs.map((run) => run.bytes / run.seconds / 1e9),
  };
}

/** A small file may be through before the signal comes: then once more, and earlier. */
async function killInMidFile(
  options: RelayOptions & { output: string },
  folder: string,
): Promise<Kill | undefined> {
  for (const share of KILL_AT_SHARES) {
    const kill = await killExaminer(options, folder, share);
    if (kill !== undefined) return kill;
    rmSync(options.output, { force: true });
  }
  return undefined;
}

async function killExaminer(
  options: RelayOptions & { output: string },
  folder: string,
  share: number,
): Promise<Kill | undefined> {
  let killedNs = 0;
  let atBytes = 0;
  let totalBytes = 0;
  const run = startRelay({
    ...options,
    progressMs: 0,
    onProgress: (written, total = 0) => {
      if (killedNs !== 0 || written < total * share) return;
      [atBytes, totalBytes] = [written, total];
      killedNs = nowNs();
      killIfThere(run.pids.examiner);
    },
  });
  const error = await run.done.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined || killedNs === 0) {
    if (error !== undefined) throw error;
    return undefined;
  }
  if (!(error instanceof RelayError) || error.code === 'ERR_UKSHM_ABORTED') throw error;
  const goneMs = (nowNs() - killedNs) / 1e6;
  const noticed = error.lost.map(({ role, atNs }) => [role, (atNs - killedNs) / 1e6]);
  return {
    ...{ pids: run.pids, killed: run.pids.examiner, atBytes, totalBytes, goneMs },
    noticedMs: Object.fromEntries(noticed) as Kill['noticedMs'],
    error: error.message,
    left: leftBehind(folder, Object.values(run.pids), run.names),
  };
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It had ended already: the file was through.
  }
}

/** Files, processes and names that a relay left; empty: nothing. */
export function leftBehind(
  folder: string,
  pids: readonly number[],
  names: readonly string[],
): string[] {
  const files = readdirSync(folder).map((name) => `the file ${join(folder, name)}`);
  const processes = pids.filter((pid) => existsSync(`/proc/${pid}`)).map((pid) => `process ${pid}`);
  const sockets = readFileSync('/proc/net/unix', 'utf8');
  const left = names.filter((name) => sockets.includes(name)).map((name) => `the name ${name}`);
  return [...files, ...processes, ...left];
}

function judge(input: string, output: string, first: RelayReport, rows: readonly Row[]): Digests {
  const byWay = Object.fromEntries(rows.map(({ way, sha256 }) => [way, sha256]));
  const all = [output, first.sha256 ?? input, ...rows.map(({ sha256 }) => sha256 ?? input)];
  return { input, output, byWay, agree: all.every((digest) => digest === input) };
}

/** SHA-256 of a file, in hexadecimal digits. */
export async function digestOf(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const source = createReadStream(path, { highWaterMark: 1 << 20 });
  try {
    await pipeline(source, hash, { signal });
  } catch (error) {
    if (signal?.aborted) {
      throw new RelayError('ERR_UKSHM_ABORTED', 'stopped', { cause: signal.reason });
    }
    const { code = 'ERR_UKSHM_RELAY' } = error as NodeJS.ErrnoException;
    throw new RelayError(code, `cannot read ${path}: ${reasonOf(error as Error)}`, {
      cause: error,
    });
  }
  return hash.digest('hex');
}
