// The side of the three processes in the conversation of control.ts, and how they end: by order, by
// a failure that they report, or because the supervisor is gone.
import {
  type FailureReport,
  type FinishedReport,
  type FromChild,
  type Job,
  nowNs,
  type Role,
  type ToChild,
} from './control.js';

/** Thrown when a neighbour ended before the file did; the supervisor knows or learns why. */
export class NeighbourLost extends Error {
  readonly neighbour: Role;
  readonly atNs: number;
  constructor(neighbour: Role, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.neighbour = neighbour;
    this.atNs = nowNs();
  }
}

/** One process's part of the job. */
export interface Part {
  /** Does the work; calls `control.ready()` when it can begin. */
  run(job: Job, control: Control): Promise<FinishedReport>;
  /** Undoes what must not stay when the job fails; synchronous, called at most once. */
  undo?(): void;
  /** What has passed so far. */
  passed(): number;
}

/** What a part may say and wait for. */
export interface Control {
  /** Says that everything is open and connected, and waits for `go` where that is for this role. */
  ready(): void;
  readonly go: Promise<void>;
  tell(message: FromChild): void;
}

/** Runs `part` under the supervisor's orders; the whole `main` of each of the three scripts. */
export function runPart(part: Part): void {
  if (process.send === undefined) {
    process.stderr.write('ukshm: this script is started by `ukshm relay`\n');
    process.exit(2);
  }
  // Ctrl-C reaches the whole process group; what follows from it is the supervisor's to decide.
  for (const signal of ['SIGINT', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, () => {});
  let undone = false;
  const undo = (): void => {
    if (undone) return;
    undone = true;
    part.undo?.();
  };
  let leaving = false;
  let go = (): void => {};
  const control: Control = {
    ready: () => void tell({ kind: 'ready' }),
    go: new Promise((resolve) => {
      go = resolve;
    }),
    tell: (message) => void tell(message),
  };
  process.on('disconnect', () => {
    if (!leaving) undo();
    end(leaving ? 0 : 1);
  });
  process.on('message', (order: ToChild) => {
    if (order.kind === 'go') go();
    if (order.kind === 'leave') {
      leaving = true;
      end(0);
    }
    if (order.kind === 'start') {
      part.run(order.job, control).then(
        (report) => void tell({ kind: 'finished', ...report }),
        (error: unknown) => void fail(part, error, undo),
      );
    }
  });
  process.on('uncaughtException', (error) => void fail(part, error, undo));
}

/** Resolves when the message is on its way, or can never be. */
function tell(message: FromChild): Promise<void> {
  return new Promise((resolve) => {
    // After the supervisor's death there is nobody to tell; `disconnect` ends this process.
    if (process.connected) process.send?.(message, undefined, {}, () => resolve());
    else resolve();
  });
}

async function fail(part: Part, error: unknown, undo: () => void): Promise<void> {
  undo();
  if (error instanceof NeighbourLost) {
    const { neighbour, atNs, message } = error;
    await tell({ kind: 'lost', neighbour, atNs, message, bytes: part.passed() });
  } else {
    await tell({ kind: 'failed', ...failureOf(error) });
  }
  end(1);
}

/**
 * Ends this process even while a thread of Node's pool hangs in a read(2) of a FIFO: exit() would
 * wait for that thread.
 */
function end(status: number): void {
  process.exitCode = status;
  if (status !== 0) process.kill(process.pid, 'SIGKILL');
  process.exit(status);
}

function failureOf(error: unknown): FailureReport {
  if (!(error instanceof Error)) return { message: String(error) };
  const code = (error as NodeJS.ErrnoException).code;
  return { message: error.message, code, stack: error.stack };
}
