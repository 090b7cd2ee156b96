// A channel: a sender, a receiver and a link, and the waiting of both directions.
//
//     open → closing (close() here) → ended (the peer drained, closed or died)
//     open → ended (the peer closed, died or misbehaved; what it had published is still delivered)
//     ended → disposed (close() here, or nothing of the peer's is held any more)
//     prohibited: ended → open; disposed → anything
import { closedError, UkshmError } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';
import { type OutboxLayout, STATE_CLOSING } from '../memory/outbox-layout.js';
import { nextTurn, nowMs } from '../sys/clock.js';
import { poller } from '../sys/poller.js';
import type { Credentials } from '../sys/socket.js';
import { describe } from './access.js';
import { carry, type ForwardTarget, type Importer, type Origin } from './forward.js';
import { Link } from './link.js';
import type { Loan } from './loan.js';
import type { Message, MessageCursor } from './message.js';
import { Receiver } from './receiver.js';
import { Sender } from './sender.js';
import { Spinner } from './spinner.js';
import { Waiters } from './waiters.js';

/** Messages that are handed out in a row before other work of the event loop gets its turn. */
const TURN_MS = 2;
const READS_PER_CLOCK = 256;

/** Why a channel ended. */
export interface CloseReason {
  readonly reason: 'closed' | 'peer-closed' | 'peer-gone' | 'peer-misbehaved';
  readonly error?: UkshmError;
}

/** What a message carries beside its bytes. */
export interface MessageOptions {
  /** 0 to 65 533; default 0. */
  readonly type?: number;
  /** A u32 by which requests and replies are matched; default 0. */
  readonly id?: number;
}

export interface TrySendOptions extends MessageOptions {
  /** `false`: the peer sees it at the next `publish()`. Default true. */
  readonly publish?: boolean;
}

export interface WaitOptions {
  /** Ends the wait: the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Numbers of one channel; counters run from its beginning. */
export interface ChannelStats {
  /** Bytes of our messages in the ring that the peer has not released. */
  readonly ringBytesUsed: number;
  /** Bytes of our chunks that the peer holds, or that are on loan here. */
  readonly bytesLent: number;
  readonly chunksLent: number;
  /** Received inline messages that are kept: they hold up the ring behind them. */
  readonly heldInline: number;
  readonly heldChunks: number;
  /** How often the peer was woken, and how often it woke us. */
  readonly ringsSent: number;
  readonly ringsReceived: number;
  /** Looks before sleeping, and those in which something came. */
  readonly spins: number;
  readonly spinsSucceeded: number;
  /** Sends that wait for space. */
  readonly waitingSends: number;
  /** Bytes of the two outboxes. */
  readonly sharedBytes: number;
}

/** What the meeting hands to a channel. */
export interface ChannelParts {
  readonly name: string;
  readonly peer: Credentials;
  readonly fd: number;
  readonly pidfd: number;
  readonly own: Mapping;
  readonly ownLayout: OutboxLayout;
  readonly other: Mapping;
  readonly otherLayout: OutboxLayout;
  readonly inFlightBytes: number;
  readonly spinMicros: number;
  readonly peerCannotFence: boolean;
  /** Where others may import the peer's outbox, if anywhere. */
  readonly origin: Origin | undefined;
  /** Maps regions that the peer forwards from. */
  readonly importer: Importer;
  /** Called once when the channel has ended. */
  readonly onEnd: () => void;
}

const TRUE: Promise<boolean> = Promise.resolve(true);

/** One of two ends. Made by `listen` and `connect`. */
export class Channel implements AsyncIterable<Message> {
  /** The name at which the two met. */
  readonly name: string;
  /** The other process, as the kernel reported it when they met. */
  readonly peer: Credentials;
  /** Resolves when the channel has ended, and with why. Never rejects. */
  readonly closed: Promise<CloseReason>;
  readonly #parts: ChannelParts;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #link: Link;
  readonly #importer: Importer;
  readonly #sendWaiters: Waiters = new Waiters();
  readonly #readWaiters: Waiters = new Waiters();
  readonly #spinner: Spinner;
  #resolveClosed: (reason: CloseReason) => void = () => {};
  #end: CloseReason | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #disposed = false;
  #reader = false;
  #refed = true;
  #ringsReceived = 0;
  #reads = 0;
  #turnStartMs = 0;

  constructor(parts: ChannelParts) {
    this.#parts = parts;
    this.name = parts.name;
    this.peer = parts.peer;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const { own, ownLayout, other, otherLayout } = parts;
    const shared = { alwaysRing: parts.peerCannotFence, ring: () => this.#link.ring() };
    this.#sender = new Sender(own, ownLayout, other, otherLayout, {
      ...shared,
      inFlightBytes: parts.inFlightBytes,
    });
    this.#receiver = new Receiver(own.words, ownLayout, other, otherLayout, {
      ...shared,
      carry: (message, to, signal) =>
        carry(this.#receiver, message, parts.origin, to.#target(), signal),
      onIdle: () => this.#maybeDispose(),
    });
    this.#spinner = new Spinner(parts.spinMicros);
    this.#importer = parts.importer;
    this.#importer.start((bytes) => this.#link.sendFrame(bytes), this.#receiver);
    this.#link = new Link(parts.fd, parts.pidfd, {
      onRing: () => this.#onRing(),
      onFrame: (bytes) => this.#guard(() => this.#importer.onFrame(bytes)),
      onHangUp: () => this.#onHangUp(),
      onError: (error) => this.#fail(error),
    });
    poller().ref();
  }

  /**
   * Takes space for a message of `lengthBytes`; `undefined` when full. Small ones (up to 8 KiB) are
   * sent in order, so one such loan may be open at a time; larger ones are free in number.
   *
   * @throws UkshmError `ERR_UKSHM_MESSAGE_TOO_LONG`, `ERR_UKSHM_LOAN_OPEN`,
   * `ERR_UKSHM_INVALID_ARGUMENT`, or why the channel ended.
   */
  tryLoan(lengthBytes: number, options?: MessageOptions): Loan | undefined {
    if (this.#sendWaiters.count > 0) return undefined;
    return this.#guard(() =>
      this.#sender.tryLoan(lengthBytes, options?.type ?? 0, options?.id ?? 0),
    );
  }

  /** As `tryLoan`, but waits while full. Waiting sends and loans are served in order. */
  async loan(lengthBytes: number, options?: MessageOptions & WaitOptions): Promise<Loan> {
    const attempt = (): Loan | undefined =>
      this.#guard(() => this.#sender.tryLoan(lengthBytes, options?.type ?? 0, options?.id ?? 0));
    return this.#whenSpace(attempt, options?.signal);
  }

  /**
   * Copies `bytes` into a message and sends it: the fast way for small ones. Never blocks.
   * @returns `false` when full: back-pressure is a result, not an error.
   * @throws as `tryLoan`.
   */
  trySend(bytes: Uint8Array, options?: TrySendOptions): boolean {
    if (this.#sendWaiters.count > 0) return false;
    try {
      if (options === undefined) return this.#sender.trySend(bytes, 0, 0, true);
      const { type, id, publish } = options;
      return this.#sender.trySend(bytes, type ?? 0, id ?? 0, publish ?? true);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** As `trySend`, but waits while full; `bytes` may be reused when it resolves. */
  async send(bytes: Uint8Array, options?: MessageOptions & WaitOptions): Promise<void> {
    const { type = 0, id = 0, signal } = options ?? {};
    signal?.throwIfAborted();
    if (this.#sendWaiters.count === 0 && this.trySend(bytes, options)) return;
    await this.#whenSpace(
      () => this.#guard(() => this.#sender.trySend(bytes, type, id, true) || undefined),
      signal,
    );
  }

  /** Lets the peer see what was sent with `publish: false`. */
  publish(): void {
    this.#sender.publish();
  }

  /**
   * Hands each message that waits now to `handler`, up to `limit`, without an object per message;
   * each is released when its handler returns. Synchronous; 0 when none waits.
   *
   * @throws UkshmError `ERR_UKSHM_BUSY`, `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_CLOSED`; what the
   * handler throws.
   */
  drain(handler: (message: MessageCursor) => void, limit: number = 65536): number {
    if (this.#reader) throw this.#busy();
    if (this.#disposed) return this.#nothingLeft();
    try {
      return this.#receiver.drain(handler, limit);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /**
   * Resolves `true` when messages wait, `false` when the peer has closed and all was read. Looks on
   * for a moment (`spinMicros`), then sleeps.
   *
   * @throws UkshmError `ERR_UKSHM_PEER_GONE` when it died and all was read, `ERR_UKSHM_BUSY`,
   * `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_CLOSED`.
   */
  readable(options?: WaitOptions): Promise<boolean> {
    if (this.#reader) return Promise.reject(this.#busy());
    return this.#readable(options?.signal);
  }

  /** Looks on for up to `micros` without sleeping; `true` as soon as messages wait. Blocks. */
  spin(micros: number): boolean {
    if (this.#disposed) return false;
    return this.#guard(() => this.#receiver.spin(micros));
  }

  /**
   * The messages, until the peer closes; throws `ERR_UKSHM_PEER_GONE` behind the last one when it
   * died. Release each. `break` leaves the channel open. One consumer at a time: `ERR_UKSHM_BUSY`.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message> {
    let open = false;
    let done = false;
    const finish = (): void => {
      if (open) this.#reader = false;
      open = false;
      done = true;
    };
    const next = (): Promise<IteratorResult<Message>> => {
      if (done) return Promise.resolve({ done: true, value: undefined });
      if (!open) {
        if (this.#reader) return Promise.reject(this.#busy());
        this.#reader = open = true;
      }
      try {
        const message = this.#turnIsOver() || this.#disposed ? undefined : this.#receiver.next();
        if (message !== undefined) return Promise.resolve({ done: false, value: message });
      } catch (error) {
        finish();
        return Promise.reject(this.#failed(error));
      }
      return this.#readable(undefined).then(
        (more) => {
          if (more) return next();
          finish();
          return { done: true, value: undefined };
        },
        (error) => {
          finish();
          throw error;
        },
      );
    };
    const stop = (): Promise<IteratorResult<Message>> => {
      finish();
      return Promise.resolve({ done: true, value: undefined });
    };
    return { next, return: stop };
  }

  stats(): ChannelStats {
    const { ownLayout, otherLayout } = this.#parts;
    return {
      ringBytesUsed: this.#sender.ringBytesUsed,
      bytesLent: this.#sender.lentBytes,
      chunksLent: this.#sender.lentCount,
      heldInline: this.#receiver.heldInline,
      heldChunks: this.#receiver.heldChunks,
      ringsSent: this.#sender.rings + this.#receiver.rings,
      ringsReceived: this.#ringsReceived,
      spins: this.#spinner.count,
      spinsSucceeded: this.#spinner.successes,
      waitingSends: this.#sendWaiters.count,
      sharedBytes: ownLayout.totalBytes + otherLayout.totalBytes,
    };
  }

  /**
   * Ends the channel: waiting sends are finished, the peer drains and releases what it was sent,
   * then the memory is freed. What the peer sends meanwhile is not read. Idempotent.
   *
   * @throws the signal's reason when that comes first; the channel is then ended at once.
   */
  close(options?: WaitOptions): Promise<void> {
    this.#closing ??= this.#close(options?.signal);
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keeps the process alive while the channel is open (the default). */
  ref(): this {
    if (!this.#refed && this.#end === undefined) poller().ref();
    this.#refed = true;
    return this;
  }

  /** Lets the process end while the channel is open. */
  unref(): this {
    if (this.#refed && this.#end === undefined) poller().unref();
    this.#refed = false;
    return this;
  }

  #target(): ForwardTarget {
    return {
      importer: this.#importer,
      sender: this.#sender,
      expectReleases: () => this.#expectReleases(),
      wait: (attempt, signal) => this.#whenSpace(() => this.#guard(attempt), signal),
    };
  }

  async #close(signal: AbortSignal | undefined): Promise<void> {
    try {
      if (this.#end === undefined) {
        const stop = (): true => {
          this.#sender.stop(closedError(`the channel '${this.name}'`));
          this.#sender.publish();
          this.#receiver.markClosing(STATE_CLOSING);
          this.#link.ring();
          return true;
        };
        await this.#whenSpace(stop, signal);
        const drained = (): true | undefined =>
          this.#end !== undefined || this.#receiver.peerClosing() || this.#sender.drained()
            ? true
            : undefined;
        await this.#whenSpace(drained, signal);
      }
    } catch (error) {
      // The peer died or misbehaved meanwhile: then the channel has ended, which was the wish.
      if (signal?.aborted) throw error;
    } finally {
      this.#finish({ reason: 'closed' });
      this.#dispose();
    }
  }

  /** Makes the attempt now, after a short look, and then whenever the peer releases something. */
  async #whenSpace<T>(attempt: () => T | undefined, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#sendWaiters.count === 0) {
      const now = attempt();
      if (now !== undefined) return now;
      const budget = this.#spinner.budget();
      if (budget > 0) {
        const later = spinUntil(attempt, budget);
        this.#spinner.report(later !== undefined);
        if (later !== undefined) return later;
      }
    }
    const result = this.#sendWaiters.wait(attempt, signal);
    this.#sleepForSpace();
    return result;
  }

  /** Announces, looks once more, and leaves the rest to the doorbell. */
  #sleepForSpace(): void {
    if (this.#end !== undefined) return;
    this.#sender.announceSleep();
    this.#sender.collect();
    this.#sendWaiters.serve();
    if (this.#sendWaiters.count === 0 && !this.#sender.owesReleases) this.#sender.awake();
  }

  /** After a forward: what comes back is passed on at once, so this side must be rung for it. */
  #expectReleases(): void {
    if (!this.#sender.asleep) this.#sleepForSpace();
  }

  #readable(signal: AbortSignal | undefined): Promise<boolean> {
    try {
      if (signal?.aborted) return Promise.reject(signal.reason);
      if (this.#turnIsOver()) {
        this.#turnStartMs = 0;
        return new Promise<void>((resolve) => nextTurn(resolve)).then(() => this.#readable(signal));
      }
      if (this.#readWaiters.count > 0) return Promise.reject(this.#busy());
      if (!this.#disposed && this.#receiver.available()) return TRUE;
      const ended = this.#readEnd();
      if (ended !== undefined) return ended ? TRUE : Promise.resolve(false);
      const budget = this.#spinner.budget();
      if (budget > 0) {
        const came = this.#receiver.spin(budget);
        this.#spinner.report(came);
        if (came) return TRUE;
      }
      this.#turnStartMs = 0;
      const result = this.#readWaiters.wait(() => this.#readState(), signal);
      this.#sleepForRecords();
      return result;
    } catch (error) {
      return Promise.reject(this.#failed(error));
    }
  }

  #sleepForRecords(): void {
    if (this.#end !== undefined) {
      this.#readWaiters.serve();
      return;
    }
    this.#receiver.announceSleep();
    this.#readWaiters.serve();
    if (this.#readWaiters.count === 0) this.#receiver.awake();
  }

  #readState(): boolean | undefined {
    if (!this.#disposed && this.#receiver.available()) return true;
    return this.#readEnd();
  }

  /** With nothing to read: `false` at the end, `undefined` if more may come; throws if it died. */
  #readEnd(): boolean | undefined {
    if (this.#end !== undefined) {
      this.#maybeDispose();
      if (this.#end.reason === 'peer-closed') return false;
      throw this.#end.error ?? closedError(`the channel '${this.name}'`);
    }
    if (this.#closing !== undefined) throw closedError(`the channel '${this.name}'`);
    if (!this.#receiver.peerClosing()) return undefined;
    // It published its last before it said so: look once more.
    return this.#receiver.available();
  }

  /** Whether this channel has had its share of the event loop's turn. */
  #turnIsOver(): boolean {
    this.#reads++;
    if (this.#reads % READS_PER_CLOCK !== 0) return false;
    const now = nowMs();
    if (this.#turnStartMs === 0) this.#turnStartMs = now;
    return now - this.#turnStartMs > TURN_MS;
  }

  /** @returns whether anything was new. */
  #onRing(): boolean {
    this.#ringsReceived++;
    try {
      const records = this.#receiver.available();
      const space = this.#sender.collect();
      if (this.#receiver.peerClosing()) {
        this.#sender.stop(this.#peerClosedError());
        if (this.#closing === undefined) this.#sendWaiters.failAll(this.#peerClosedError());
      }
      const read = this.#readWaiters.serve();
      if (this.#readWaiters.count === 0) this.#receiver.awake();
      const sent = this.#sendWaiters.serve();
      if (this.#sendWaiters.count > 0 || this.#sender.owesReleases) this.#sleepForSpace();
      else this.#sender.awake();
      if (this.#readWaiters.count > 0 && this.#end === undefined) this.#sleepForRecords();
      return records || space || read || sent;
    } catch (error) {
      this.#fail(error);
      return true;
    }
  }

  #onHangUp(): void {
    if (this.#end !== undefined) return;
    let closedByPeer = false;
    try {
      closedByPeer = this.#receiver.peerClosing();
      this.#receiver.freeze();
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (closedByPeer) {
      this.#finish({ reason: 'peer-closed' });
      return;
    }
    const text = `${describe(this.peer)} is gone; the channel '${this.name}' has ended`;
    this.#finish({ reason: 'peer-gone', error: new UkshmError('ERR_UKSHM_PEER_GONE', text) });
  }

  #fail(error: unknown): void {
    if (!(error instanceof UkshmError)) throw error;
    this.#finish({ reason: 'peer-misbehaved', error });
  }

  /** The channel has ended: the memory stays until nothing of it is held. */
  #finish(end: CloseReason): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    const misbehaved = end.reason === 'peer-misbehaved';
    if (!misbehaved) this.#freezeQuietly();
    this.#link.close();
    if (this.#refed) poller().unref();
    const error = end.error ?? this.#peerClosedError();
    this.#sender.stop(error);
    this.#sender.revoke();
    this.#importer.stop(error);
    this.#parts.origin?.end();
    this.#sendWaiters.serve();
    this.#sendWaiters.failAll(error);
    if (misbehaved) {
      this.#readWaiters.failAll(error);
      this.#dispose();
    } else {
      this.#readWaiters.serve();
      this.#readWaiters.failAll(error);
      this.#maybeDispose();
    }
    this.#parts.onEnd();
    this.#resolveClosed(end);
  }

  #freezeQuietly(): void {
    try {
      this.#receiver.freeze();
    } catch {
      // The dead one's last tail was a lie: nothing more of it is read.
    }
  }

  /** Frees the memory of an ended channel once everything was read and released. */
  #maybeDispose(): void {
    if (this.#end === undefined || this.#disposed || this.#end.reason === 'closed') return;
    const { heldChunks, heldInline } = this.#receiver;
    if (heldChunks + heldInline === 0 && !this.#receiver.available()) this.#dispose();
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#receiver.close();
    this.#parts.own.close();
  }

  #nothingLeft(): 0 {
    if (this.#end === undefined || this.#end.reason !== 'peer-closed') {
      throw this.#end?.error ?? closedError(`the channel '${this.name}'`);
    }
    return 0;
  }

  #peerClosedError(): UkshmError {
    const text = `${describe(this.peer)} has closed the channel '${this.name}'`;
    return new UkshmError('ERR_UKSHM_PEER_CLOSED', text);
  }

  #busy(): UkshmError {
    const text = `the channel '${this.name}' already has a consumer: one reads at a time`;
    return new UkshmError('ERR_UKSHM_BUSY', text);
  }

  #guard<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** A lie of the peer's ends the channel; whatever was thrown is thrown on. */
  #failed(error: unknown): unknown {
    if (error instanceof UkshmError && error.code === 'ERR_UKSHM_PEER_MISBEHAVED') {
      this.#fail(error);
    }
    return error;
  }
}

function spinUntil<T>(attempt: () => T | undefined, micros: number): T | undefined {
  const deadline = nowMs() + micros / 1000;
  do {
    const result = attempt();
    if (result !== undefined) return result;
  } while (nowMs() < deadline);
  return undefined;
}
