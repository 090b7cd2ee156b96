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
  /** By the code that this way runs: in the programs and Node, and in the kernel. */
  readonly copiedUserBytes: number;
  readonly copiedKernelBytes: number;
  readonly sha256?: string;
}

/** How often each byte of the file is copied on its way. */
export interface Copies {
  readonly user: number;
  readonly kernel: number;
}

/** What the processes of a comparison tell their supervisor. */
export type StageReport =
  | { readonly kind: 'ready'; readonly role: Role }
  | ({ readonly kind: 'finished'; readonly role: Role } & FinishedReport);

/** Sums up the three reports. */
export function comparisonOf(
  reports: ReadonlyMap<Role, FinishedReport>,
  copies: Copies,
): Comparison {
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
    copiedUserBytes: copies.user * writer.bytes,
    copiedKernelBytes: copies.kernel * writer.bytes,
    sha256: examiner.sha256,
  };
}
