// Errors with stable codes. Imports nothing; everything may use it.

/** Every `code` that ukshm throws or rejects with. */
export type ErrorCode =
  | 'ERR_UKSHM_ACCESS_DENIED'
  | 'ERR_UKSHM_ADDON'
  | 'ERR_UKSHM_ALREADY_REPLIED'
  | 'ERR_UKSHM_BUSY'
  | 'ERR_UKSHM_CANNOT_FORWARD'
  | 'ERR_UKSHM_CLAIMED'
  | 'ERR_UKSHM_CLOSED'
  | 'ERR_UKSHM_DOUBLE_FREE'
  | 'ERR_UKSHM_FOREIGN_CHUNK'
  | 'ERR_UKSHM_INVALID_ARGUMENT'
  | 'ERR_UKSHM_LENT'
  | 'ERR_UKSHM_LIMIT'
  | 'ERR_UKSHM_LOAN_OPEN'
  | 'ERR_UKSHM_LOAN_USED'
  | 'ERR_UKSHM_MAY_NOT_BLOCK'
  | 'ERR_UKSHM_MEMLOCK_LIMIT'
  | 'ERR_UKSHM_MESSAGE_RELEASED'
  | 'ERR_UKSHM_MESSAGE_TOO_LONG'
  | 'ERR_UKSHM_NAME_IN_USE'
  | 'ERR_UKSHM_NO_HUGE_PAGES'
  | 'ERR_UKSHM_NO_LISTENER'
  | 'ERR_UKSHM_NO_MEMORY'
  | 'ERR_UKSHM_NO_PROCESS'
  | 'ERR_UKSHM_NO_SPACE'
  | 'ERR_UKSHM_NOT_A_REQUEST'
  | 'ERR_UKSHM_NOT_HELD'
  | 'ERR_UKSHM_NOT_OFFERED'
  | 'ERR_UKSHM_NOT_OWNER'
  | 'ERR_UKSHM_NOT_PAGES'
  | 'ERR_UKSHM_NOT_UNIT_ALIGNED'
  | 'ERR_UKSHM_NO_REPLY'
  | 'ERR_UKSHM_OVERLAP'
  | 'ERR_UKSHM_PEER_CLOSED'
  | 'ERR_UKSHM_PEER_GONE'
  | 'ERR_UKSHM_PEER_MISBEHAVED'
  | 'ERR_UKSHM_REGION_HELD'
  | 'ERR_UKSHM_REMOTE'
  | 'ERR_UKSHM_STILL_WRITABLE'
  | 'ERR_UKSHM_SYSCALL'
  | 'ERR_UKSHM_TIMEOUT'
  | 'ERR_UKSHM_TOO_SLOW'
  | 'ERR_UKSHM_UNSUPPORTED'
  | 'ERR_UKSHM_VERSION'
  | 'ERR_UKSHM_WRONG_OWNER';

/** An operating failure: `message` says what happened and what to do about it. */
export class UkshmError extends Error {
  override readonly name: string = 'UkshmError';
  /** Stable; compare this, not the message. */
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** The other side answered a request with an error; these are its words, and may be anything. */
export class RemoteError extends UkshmError {
  override readonly name: string = 'RemoteError';
  /** The error's own name there, as 'TypeError'. */
  readonly remoteName: string;
  /** The error's own code there; empty if it had none. */
  readonly remoteCode: string;
  constructor(remoteName: string, remoteCode: string, message: string) {
    super('ERR_UKSHM_REMOTE', message === '' ? remoteName : message);
    this.remoteName = remoteName;
    this.remoteCode = remoteCode;
  }
}

/** A failed system call. `errno` is negative, as in Node and in `io_uring_cqe.res`. */
export class SyscallError extends UkshmError {
  override readonly name: string = 'SyscallError';
  readonly syscall: string;
  readonly errno: number;
  constructor(syscall: string, errno: number, hint: string = '', code?: ErrorCode) {
    super(
      code ?? 'ERR_UKSHM_SYSCALL',
      `${syscall} failed with errno ${-errno}${hint === '' ? '' : `: ${hint}`}`,
    );
    this.syscall = syscall;
    this.errno = errno;
  }
}

/** An argument out of its range: a mistake of the calling program. */
export function invalidArgument(name: string, value: unknown, expected: string): UkshmError {
  const shown = typeof value === 'string' ? `'${value}'` : String(value);
  return new UkshmError('ERR_UKSHM_INVALID_ARGUMENT', `${name} is ${shown}; expected ${expected}`);
}

/** What a peer wrote cannot be true: its channel ends, and no other. */
export function peerMisbehaved(what: string): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_PEER_MISBEHAVED',
    `the peer broke the protocol: ${what}; its channel has been ended`,
  );
}

/** The object was closed by this process. */
export function closedError(what: string): UkshmError {
  return new UkshmError('ERR_UKSHM_CLOSED', `${what} is closed`);
}
