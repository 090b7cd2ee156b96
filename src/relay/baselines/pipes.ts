// The job over two pipes of the kernel: three Node processes that a shell joins, as in
// `reader | examiner | writer`. Reports come over descriptor 3, which all three inherit.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { type FinishedReport, ROLES, type Role } from '../control.js';
import {
  type Comparison,
  type ComparisonJob,
  type Copies,
  comparisonOf,
  type StageReport,
} from './comparison.js';

/**
 * How the three are written: with `pipeline` of node:stream, as Node programs are, or as loops of
 * blocking reads and writes, which is the most that pipes can do.
 */
export type PipeStyle = 'streams' | 'blocking';

/** read(2) of the file, a write and a read for each of the two pipes, write(2) of the file. */
const COPIES: Copies = { user: 0, kernel: 6 };

const PIPELINE = ROLES.map((role) => `"$0" "$1" ${role}`).join(' | ');

/** Runs the job once. Rejects when a process fails, or when `signal` ends it. */
export async function runOverPipes(
  job: ComparisonJob,
  style: PipeStyle,
  signal?: AbortSignal,
): Promise<Comparison> {
  signal?.throwIfAborted();
  const script = fileURLToPath(new URL('./pipe-stage.js', import.meta.url));
  const shell = spawn('sh', ['-c', PIPELINE, process.execPath, script], {
    stdio: ['pipe', 'ignore', 'inherit', 'pipe'],
    env: { ...process.env, UKSHM_STAGE: JSON.stringify({ ...job, style }) },
    // A group of its own, so that all of it can be ended at once.
    detached: true,
  });
  const end = (): void => {
    if (shell.pid !== undefined && shell.exitCode === null) process.kill(-shell.pid, 'SIGKILL');
  };
  signal?.addEventListener('abort', end, { once: true });
  process.once('exit', end);
  try {
    const exited = new Promise<number | null>((resolve, reject) => {
      shell.once('error', reject);
      shell.once('exit', resolve);
    });
    const start = shell.stdin as Writable;
    start.on('error', () => {});
    const reports = await collect(shell.stdio[3] as Readable, () => start.end('go\n'));
    const status = await exited;
    signal?.throwIfAborted();
    if (status !== 0) throw new Error(`the comparison over pipes ended with status ${status}`);
    return comparisonOf(reports, COPIES);
  } finally {
    signal?.removeEventListener('abort', end);
    process.off('exit', end);
  }
}

async function collect(lines: Readable, go: () => void): Promise<Map<Role, FinishedReport>> {
  const reports = new Map<Role, FinishedReport>();
  let readyCount = 0;
  for await (const line of createInterface({ input: lines })) {
    const report = JSON.parse(line) as StageReport;
    if (report.kind === 'finished') reports.set(report.role, report);
    else if (++readyCount === ROLES.length) go();
  }
  return reports;
}
