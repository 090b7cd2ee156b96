// What went wrong, in one line: the process that failed first and why, not what the others made of
// it. A killed process says nothing itself; its neighbours report a lost peer; the supervisor sees
// all of it, in no certain order.
import type { FailureReport, LostReport, Role } from './control.js';

/** How one of the three ended, as far as the supervisor knows. */
export interface Ending {
  readonly role: Role;
  readonly pid: number;
  failed?: FailureReport;
  lost?: LostReport;
  /** It ended without an order or a report. */
  exit?: { readonly status: number | null; readonly signal: NodeJS.Signals | null };
}

/** What the caller asked for, for the words of the message. */
export interface Names {
  readonly input: string;
  readonly output?: string;
  readonly examine?: string;
}

/** The relay did not bring the file to its end. Nothing of the output was left. */
export class RelayError extends Error {
  override readonly name = 'RelayError';
  readonly code: string;
  /** The process in which it began; `undefined`: in the supervisor, or by the user. */
  readonly role?: Role;
  /** What the other processes noticed of it, and when. */
  readonly lost: readonly (LostReport & { readonly role: Role })[];
  /** The stack in the process that failed. */
  readonly remoteStack?: string;
  constructor(
    code: string,
    message: string,
    details: { role?: Role; lost?: RelayError['lost']; remoteStack?: string; cause?: unknown } = {},
  ) {
    super(message, { cause: details.cause });
    this.code = code;
    this.role = details.role;
    this.lost = details.lost ?? [];
    this.remoteStack = details.remoteStack;
  }
}

/** The error to show for what happened; the first cause wins over its consequences. */
export function rootCause(endings: readonly Ending[], names: Names): RelayError {
  const lost = endings.flatMap(({ role, lost: report }) => (report ? [{ role, ...report }] : []));
  // A report of its own is a cause; so is a death without one. A lost neighbour is a consequence.
  const failed = endings.find((ending) => ending.failed !== undefined);
  if (failed?.failed !== undefined) {
    const { message, code, stack } = failed.failed;
    const text = `the ${failed.role} ${explain(failed.role, failed.failed, names)}`;
    return new RelayError(code ?? 'ERR_UKSHM_RELAY', text || message, {
      role: failed.role,
      lost,
      remoteStack: stack,
    });
  }
  const died = endings.find((ending) => ending.exit !== undefined && ending.lost === undefined);
  if (died?.exit !== undefined) {
    const { role, pid, exit } = died;
    const how = exit.signal ? `was killed by ${exit.signal}` : `ended with status ${exit.status}`;
    const hint =
      exit.signal === 'SIGSEGV' && names.examine !== undefined && role === 'examiner'
        ? '; message.bytes is read-only memory: write to message.copy() instead'
        : '';
    const text = `the ${role} (process ${pid}) ${how} before the file was complete${hint}`;
    return new RelayError('ERR_UKSHM_PEER_GONE', text, { role, lost });
  }
  const first = lost[0];
  return new RelayError('ERR_UKSHM_PEER_GONE', first?.message ?? 'the relay ended early', { lost });
}

/** What it could not do, in words, from the system call that failed. */
function explain(role: Role, { message, code, stack }: FailureReport, names: Names): string {
  const call = /, (open|read|write|fsync|ftruncate)\b/.exec(message)?.[1];
  const why = reasonOf({ code, message });
  if (role === 'reader' && call !== undefined) {
    const input = names.input === '-' ? 'standard input' : names.input;
    return `cannot ${call} ${input}: ${why}`;
  }
  if (role === 'writer' && call !== undefined) {
    const output = names.output === '-' ? 'standard output' : (names.output ?? 'the output');
    const verb = call === 'open' ? 'create' : 'write';
    return `cannot ${verb} ${output}: ${why}`;
  }
  if (role === 'examiner' && names.examine !== undefined && !message.startsWith('ERR_UKSHM')) {
    const load = code === 'ERR_MODULE_NOT_FOUND' || /no default export/.test(message);
    const syntax = stack?.startsWith('SyntaxError') || stack?.includes('SyntaxError:');
    if (load || syntax) return `cannot load ${names.examine}: ${message.split('\n')[0]}`;
    return `stopped: ${names.examine} threw: ${message.split('\n')[0]}`;
  }
  return `failed: ${message.split('\n')[0]}`;
}

/** Why a call of the file system failed, in words where it is one of the usual reasons. */
export function reasonOf(error: { readonly code?: string; readonly message: string }): string {
  return REASONS[error.code ?? ''] ?? error.message;
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file would be larger than is allowed here',
  EIO: 'the device reports an input/output error',
  EISDIR: 'it is a folder',
  ENODEV: 'no such device',
  ENOENT: 'no such file or folder',
  ENOSPC: 'no space is left on the device',
  ENOTDIR: 'a part of the path is no folder',
  ENXIO: 'no such device or address',
  EPERM: 'operation not permitted',
  EPIPE: 'whoever read it has closed it',
  EROFS: 'the file system is read-only',
};
