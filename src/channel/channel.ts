// A channel: a sender, a receiver and a link, and the waiting of both directions.
//
//     open → closing (close() here) → ended (the peer drained, closed or died)
//     open → ended (the peer closed, died or misbehaved; what it had published is still delivered)
//     ended → disposed (close() here, or nothing of the peer's is held any more)
//     prohibited: ended → open; disposed → anything
import { closedError, UkshmError } from '../core/errors.js';
import { STATE_CLOSING } from '../memory/outbox-layout.js';
import { KeepAlive } from '../sys/poller.js';
import type { Credentials } from '../sys/socket.js';
import { busy, peerClosed, peerGone } from './ends.js';
import { carry, type ForwardTarget, type Importer } from './forward.js';
import { MessageIterator } from './iterator.js';
import { Link } from './link.js';
import type { Loan } from './loan.js';
import type { Message, MessageCursor } from './message.js';
import type { CloseReason, MessageOptions, TrySendOptions, WaitOptions } from './options.js';
import type { ChannelParts } from './parts.js';
import { Receiver } from './receiver.js';
import { RecordWaits } from './records.js';
import { Sender } from './sender.js';
import { SpaceWaits } from './space.js';
import { Spinner } from './spinner.js';
import { type ChannelStats, channelStats } from './stats.js';

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
  readonly #spinner: Spinner;
  readonly #space: SpaceWaits;
  readonly #records: RecordWaits;
  readonly #alive: KeepAlive = new KeepAlive();
  #resolveClosed: (reason: CloseReason) => void = () => {};
  #end: CloseReason | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #disposed = false;
  #reader = false;
  #ringsReceived = 0;

  /** @internal For `listen` and `connect`. */
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
      onDiscard: () => this.#space.count > 0 && this.#space.serve(),
    });
    this.#receiver = new Receiver(own.words, ownLayout, other, otherLayout, {
      ...shared,
      carry: (message, to, signal) =>
        carry(this.#receiver, message, parts.origin, to.#target(), signal),
      onIdle: () => this.#maybeDispose(),
    });
    this.#spinner = new Spinner(parts.spinMicros);
    this.#space = new SpaceWaits(this.#sender, this.#spinner);
    this.#records = new RecordWaits(this.#receiver, this.#spinner, {
      atEnd: () => this.#atEnd(),
      failed: (error) => this.#failed(error),
    });
    this.#importer = parts.importer;
    this.#importer.start((bytes) => this.#link.sendFrame(bytes), this.#receiver);
    this.#link = new Link(parts.fd, parts.pidfd, {
      onReadable: () => this.#records.serveNews(),
      onRing: () => this.#onRing(),
      onFrame: (bytes) => this.#orFail(() => this.#importer.onFrame(bytes)),
      onHangUp: () => this.#onHangUp(),
      onError: (error) => this.#fail(error),
    });
    this.#alive.start();
  }

  /**
   * Takes space for a message of `lengthBytes`; `undefined` when full. Small ones (up to 8 KiB) are
   * sent in order, so one such loan may be open at a time; larger ones are free in number.
   *
   * @throws UkshmError `ERR_UKSHM_MESSAGE_TOO_LONG`, `ERR_UKSHM_LOAN_OPEN`,
   * `ERR_UKSHM_INVALID_ARGUMENT`, or why the channel ended.
   */
  tryLoan(lengthBytes: number, options?: MessageOptions): Loan | undefined {
    if (this.#space.count > 0) return undefined;
    return this.#guard(() =>
      this.#sender.tryLoan(lengthBytes, options?.type ?? 0, options?.id ?? 0),
    );
  }

  /** As `tryLoan`, but waits while full. Waiting sends and loans are served in order. */
  async loan(lengthBytes: number, options?: MessageOptions & WaitOptions): Promise<Loan> {
    if (this.#closing !== undefined) throw this.#end?.error ?? this.#closedError();
    const attempt = (): Loan | undefined =>
      this.#guard(() => this.#sender.tryLoan(lengthBytes, options?.type ?? 0, options?.id ?? 0));
    return this.#space.when(attempt, options?.signal);
  }

  /**
   * Copies `bytes` into a message and sends it: the fast way for small ones. Never blocks.
   * @returns `false` when full: back-pressure is a result, not an error.
   * @throws as `tryLoan`.
   */
  trySend(bytes: Uint8Array, options?: TrySendOptions): boolean {
    if (this.#space.count > 0) return false;
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
    if (this.#closing !== undefined) throw this.#end?.error ?? this.#closedError();
    await this.#space.when(
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
    if (this.#reader) throw busy(this.name);
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
    if (this.#reader) return Promise.reject(busy(this.name));
    if (this.#closing !== undefined) return Promise.reject(this.#closedError());
    return this.#readable(options?.signal);
  }

  /** Looks on for up to `micros` without sleeping; `true` as soon as messages wait. Blocks. */
  spin(micros: number): boolean {
    if (this.#disposed) return false;
    try {
      return this.#receiver.spin(micros);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /**
   * The messages, until either side closes; throws `ERR_UKSHM_PEER_GONE` behind the last one when it
   * died. Release each. `break` leaves the channel open. One consumer at a time: `ERR_UKSHM_BUSY`.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message> {
    return new MessageIterator({
      claim: () => {
        if (this.#reader || this.#receiver.draining) throw busy(this.name);
        this.#reader = true;
      },
      unclaim: () => {
        this.#reader = false;
      },
      take: () => {
        if (this.#disposed || this.#records.turnIsOver()) return undefined;
        try {
          return this.#receiver.next();
        } catch (error) {
          throw this.#failed(error);
        }
      },
      readable: () => this.#readable(undefined),
    });
  }

  /** How the memory is used now, and what happened so far. */
  stats(): ChannelStats {
    try {
      // Reads what the peer has released meanwhile.
      if (this.#end === undefined) this.#sender.drained();
    } catch (error) {
      this.#failed(error);
    }
    return channelStats(this.#sender, this.#receiver, this.#spinner, {
      ringsReceived: this.#ringsReceived,
      waitingSends: this.#space.count,
    });
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
    this.#alive.ref();
    return this;
  }

  /** Lets the process end while the channel is open. */
  unref(): this {
    this.#alive.unref();
    return this;
  }

  #target(): ForwardTarget {
    return {
      importer: this.#importer,
      sender: this.#sender,
      expectReleases: () => this.#space.expectReleases(),
      wait: (attempt, signal) => this.#space.when(() => this.#guard(attempt), signal),
    };
  }

  async #close(signal: AbortSignal | undefined): Promise<void> {
    const stop = (): true => {
      this.#sender.stop(this.#closedError());
      this.#sender.publish();
      this.#receiver.markClosing(STATE_CLOSING);
      this.#link.ring();
      return true;
    };
    try {
      if (this.#end === undefined) {
        await this.#space.when(stop, signal);
        const drained = (): true | undefined =>
          this.#end !== undefined || this.#receiver.peerClosing() || this.#sender.drained()
            ? true
            : undefined;
        await this.#space.when(drained, signal);
      }
    } catch (error) {
      // The peer died or misbehaved meanwhile: then the channel has ended, which was the wish.
      if (signal?.aborted) throw error;
    } finally {
      // Also where the signal came first: the peer shall not take this side for dead.
      if (this.#end === undefined) stop();
      this.#finish({ reason: 'closed' });
      this.#dispose();
    }
  }

  #readable(signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#records.waiting) return Promise.reject(busy(this.name));
    return this.#records.readable(signal);
  }

  /** With nothing to read: whether nothing more comes; throws if the peer died. */
  #atEnd(): boolean {
    if (this.#end === undefined) return this.#closing !== undefined || this.#receiver.peerClosing();
    this.#maybeDispose();
    if (this.#end.error !== undefined) throw this.#end.error;
    return true;
  }

  /** @returns whether anything was new. */
  #onRing(): boolean {
    this.#ringsReceived++;
    let fresh = true;
    this.#orFail(() => {
      const records = this.#receiver.news();
      const released = this.#sender.collect();
      if (this.#receiver.peerClosing()) this.#onPeerClosing();
      const read = this.#records.serve();
      const sent = this.#end === undefined && this.#space.serve();
      fresh = records || released || read || sent;
    });
    return fresh;
  }

  #orFail(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The peer reads nothing more. */
  #onPeerClosing(): void {
    const error = peerClosed(this.peer, this.name);
    this.#sender.stop(error);
    if (this.#closing === undefined) this.#space.fail(error);
  }

  #onHangUp(): void {
    const error = peerGone(this.peer, this.name);
    const reason = this.#closing === undefined ? 'peer-closed' : 'closed';
    this.#finish(this.#receiver.peerClosing() ? { reason } : { reason: 'peer-gone', error });
  }

  #fail(error: unknown): void {
    if (!(error instanceof UkshmError)) throw error;
    this.#finish({ reason: 'peer-misbehaved', error });
  }

  /** The channel has ended: the memory stays until nothing of it is held. */
  #finish(end: CloseReason): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#receiver.end();
    const misbehaved = end.reason === 'peer-misbehaved';
    if (!misbehaved) this.#receiver.freeze();
    this.#link.close();
    this.#alive.end();
    const own = end.reason === 'closed';
    const error = end.error ?? (own ? this.#closedError() : peerClosed(this.peer, this.name));
    this.#sender.stop(error);
    this.#sender.revoke();
    this.#importer.stop(error);
    this.#parts.origin?.end();
    this.#space.end(error);
    if (misbehaved) this.#dispose();
    this.#records.end(error);
    this.#maybeDispose();
    this.#parts.onEnd();
    this.#resolveClosed(end);
  }

  /** Frees the memory of an ended channel once everything was read and released. */
  #maybeDispose(): void {
    if (this.#end === undefined || this.#disposed || this.#end.reason === 'closed') return;
    if (this.#receiver.idle) this.#dispose();
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#receiver.close();
    this.#parts.own.close();
  }

  #nothingLeft(): 0 {
    if (this.#end?.reason === 'peer-closed') return 0;
    throw this.#end?.error ?? this.#closedError();
  }

  #closedError(): UkshmError {
    return closedError(`the channel '${this.name}'`);
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
