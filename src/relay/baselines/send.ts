// The job over `child.send` with serialization 'advanced', which goes between a parent and its
// children only: the examiner is the parent of the reader and of the writer.
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FinishedReport, Role } from '../control.js';
import {
  type Comparison,
  type ComparisonJob,
  type Copies,
  comparisonOf,
  type StageReport,
} from './comparison.js';

/**
 * The kernel as with pipes; and for each of the two hops once into the serializer, and once to join
 * the pieces that arrive (Node's lib/internal/child_process/serialization.js).
 */
const COPIES: Copies = { user: 4, kernel: 6 };

/** Runs the job once. Rejects when a process fails, or when `signal` ends it. */
export async function runOverSend(job: ComparisonJob, signal?: AbortSignal): Promise<Comparison> {
  signal?.throwIfAborted();
  const script = fileURLToPath(new URL('./send-stage.js', import.meta.url));
  const examiner = fork(script, ['examiner', JSON.stringify(job)]);
  const reports = new Map<Role, FinishedReport>();
  examiner.on('message', (report: StageReport) => {
    if (report.kind === 'finished') reports.set(report.role, report);
  });
  // Its children notice by their IPC channel and end too.
  const end = (): void => void examiner.kill('SIGKILL');
  signal?.addEventListener('abort', end, { once: true });
  process.once('exit', end);
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      examiner.once('error', reject);
      // 'close', not 'exit': the last reports may arrive in between.
      examiner.once('close', resolve);
    });
    signal?.throwIfAborted();
    if (status !== 0) throw new Error(`the comparison over child.send ended with ${status}`);
    return comparisonOf(reports, COPIES);
  } finally {
    signal?.removeEventListener('abort', end);
    process.off('exit', end);
  }
}
