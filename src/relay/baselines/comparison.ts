// The same job done in the ways that Node has: what every way is given, and what it reports.
import type { FinishedReport, Role } from '../control.js';

/** The job: the same file, chunk size, hash and fsync for every way. */
export interface ComparisonJob {
  readonly input: string;
  readonly output: string;
  readonly chunkBytes: number;
  readonly hash: boolean;
}

/** What one way needed for the job, from the first byte to the last. */
export interface Comparison {
  readonly bytes: number;
  readonly seconds: number;
  /** User and system time of all three processes. */
  readonly cpuSeconds: number;
  readonly fsyncSeconds: number;
  readonly sha256?: string;
}

/** What the processes of a comparison tell their supervisor. */
export type StageReport =
  | { readonly kind: 'ready'; readonly role: Role }
  | ({ readonly kind: 'finished'; readonly role: Role } & FinishedReport);

/** Sums up the three reports. */
export function comparisonOf(reports: ReadonlyMap<Role, FinishedReport>): Comparison {
  const reader = reports.get('reader');
  const examiner = reports.get('examiner');
  const writer = reports.get('writer');
  if (reader === undefined || examiner === undefined || writer === undefined) {
    throw new Error('a process of the comparison ended without its report');
  }
  return {
    bytes: writer.bytes,
    seconds: (writer.lastNs - reader.firstNs) / 1e9,
    cpuSeconds: reader.cpuSeconds + examiner.cpuSeconds + writer.cpuSeconds,
    fsyncSeconds: writer.fsyncSeconds ?? 0,
    sha256: examiner.sha256,
  };
}
