// How a command ends: one line for what went wrong, an exit status for the shell.
import { CommanderError } from 'commander';

/** Exit statuses. A signal ends with 128 and its number, as a shell has it. */
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** A wrong argument that the parser cannot know. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'ERR_UKSHM_USAGE';
}

/** A command whose answer is no, and which has said so already. */
export class Unsuccessful extends Error {
  override readonly name = 'Unsuccessful';
}

/** The user, or the system, ended the command by a signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly code: NodeJS.Signals;
  constructor(signal: NodeJS.Signals) {
    super(signal === 'SIGINT' ? 'interrupted' : `ended by a signal`);
    this.code = signal;
  }
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGTERM: 15,
};

/**
 * Says on standard error what went wrong.
 *
 * @param verbose - the stack as well, and that of the process in which it began.
 * @returns the exit status.
 */
export function explain(error: unknown, verbose: boolean): number {
  if (error instanceof Unsuccessful) return EXIT_FAILED;
  if (error instanceof CommanderError) {
    // The parser has printed help, the version, or what is wrong with the arguments.
    return error.exitCode === 0 ? 0 : EXIT_USAGE;
  }
  const cause = interruptionOf(error);
  process.stderr.write(`${oneLine(error)}\n`);
  if (verbose && cause === undefined) process.stderr.write(`${stackOf(error)}\n`);
  if (cause !== undefined) return 128 + (SIGNAL_NUMBERS[cause.code] ?? 0);
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
}

function interruptionOf(error: unknown): Interrupted | undefined {
  if (error instanceof Interrupted) return error;
  return error instanceof Error && error.cause instanceof Interrupted ? error.cause : undefined;
}

function oneLine(error: unknown): string {
  if (!(error instanceof Error)) return `ukshm: ${String(error)}`;
  const code = interruptionOf(error)?.code ?? (error as NodeJS.ErrnoException).code;
  const message = error.message.replace(/\s*\n\s*/g, ' ');
  return code === undefined ? `ukshm: ${message}` : `ukshm: ${message} (${code})`;
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  const remote = (error as { remoteStack?: string }).remoteStack;
  const role = (error as { role?: string }).role;
  const own = error.stack ?? error.message;
  return remote === undefined ? own : `${own}\nin the ${role ?? 'other process'}:\n${remote}`;
}
