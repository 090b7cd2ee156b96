// What the supervisor and its three processes say to each other over Node's own IPC channel. Only
// control and status go this way; the bytes of the file go through channels alone.
//
//     supervisor                      reader, examiner, writer
//       start  ─────────────────────▶   listen, connect, open files, pass a greeting along
//              ◀─────────────────────  ready
//       go (to the reader) ─────────▶   bytes flow
//              ◀─────────────────────  progress (writer), frame (each), finished (each)
//       leave  ─────────────────────▶   exit with status 0
//              ◀─────────────────────  lost, failed: the peer went away; something else went wrong
//
// Prohibited: `go` before all three are ready; `leave` before the output has its name.

/** The three processes, in the order in which the bytes pass them. */
export type Role = 'reader' | 'examiner' | 'writer';
export const ROLES: readonly Role[] = ['reader', 'examiner', 'writer'];

/** Types of the messages in the channels. */
/** Goes through all three before the first byte, so that all of them have mapped the memory. */
export const MESSAGE_GREETING = 1;
export const MESSAGE_DATA = 2;
/** Ends the file: a JSON text with what was sent, so that a cut stream never passes for a whole. */
export const MESSAGE_END = 3;

/** What the last message of a file says. */
export interface EndOfFile {
  readonly bytes: number;
  readonly messages: number;
}

/** What each process is told at its start. */
export interface Job {
  readonly role: Role;
  readonly pids: Readonly<Record<Role, number>>;
  /** Names at which the reader and the writer listen. */
  readonly readerName: string;
  readonly writerName: string;
  /** A path, or `-` for standard input. */
  readonly input: string;
  readonly output: OutputFile;
  readonly chunkBytes: number;
  readonly inFlightBytes: number;
  readonly spinMicros?: number;
  readonly hash: boolean;
  /** The writer writes past the page cache where that is possible. */
  readonly direct: boolean;
  /** An absolute path to the user's examiner. */
  readonly examine?: string;
  /** Each process reports the page frame of the first chunk. */
  readonly reportFrame: boolean;
  /** The least time between two reports of progress; 0: one for each message. */
  readonly progressMs: number;
}

/** Where the writer writes. */
export type OutputFile =
  | { readonly kind: 'none' }
  | { readonly kind: 'stdout' }
  /** Something that is there and is no regular file: a device, a FIFO. Written to directly. */
  | { readonly kind: 'direct'; readonly path: string }
  /** A new file under a temporary name, which the supervisor renames when it is complete. */
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly temporary: string;
      readonly mode?: number;
    };

export type ToChild =
  | { readonly kind: 'start'; readonly job: Job }
  | { readonly kind: 'go' }
  | { readonly kind: 'leave' };

export type FromChild =
  | { readonly kind: 'ready' }
  | { readonly kind: 'progress'; readonly bytes: number }
  | ({ readonly kind: 'frame' } & FrameReport)
  | ({ readonly kind: 'lost' } & LostReport)
  | ({ readonly kind: 'failed' } & FailureReport)
  | ({ readonly kind: 'finished' } & FinishedReport);

/** Where the first chunk lies in one process. */
export interface FrameReport {
  readonly address: number;
  /** The number of the physical page frame, if the kernel tells this user. */
  readonly frame?: number;
  /** Why it does not. */
  readonly reason?: string;
}

/** A process noticed that a neighbour ended before the file did. */
export interface LostReport {
  readonly neighbour: Role;
  readonly atNs: number;
  readonly message: string;
  /** What had passed this process by then. */
  readonly bytes: number;
}

/** A process could not go on for a reason of its own. */
export interface FailureReport {
  readonly message: string;
  readonly code?: string;
  readonly stack?: string;
}

/** A process did its part. */
export interface FinishedReport {
  readonly bytes: number;
  readonly messages: number;
  /** Before the first byte was read, or with the first message. CLOCK_MONOTONIC. */
  readonly firstNs: number;
  readonly lastNs: number;
  /** User and system time between the two. */
  readonly cpuSeconds: number;
  /** The writer's fsync, after `lastNs`. */
  readonly fsyncSeconds?: number;
  /** Bytes that the writer wrote past the page cache. */
  readonly directBytes?: number;
  readonly sha256?: string;
  /** What the user's examiner had to say at the end. */
  readonly examined?: unknown;
}

/** The monotonic clock, which all processes of a machine share; below 2^53 for a hundred days. */
export function nowNs(): number {
  return Number(process.hrtime.bigint());
}
