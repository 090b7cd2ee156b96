// A channel: a sender, a receiver and a link, and the waiting of both directions.
import type { Duplex } from 'node:stream';
import { UkshmError } from '../core/errors.js';
import { KeepAlive } from '../sys/keep-alive.js';
import type { Credentials } from '../sys/socket.js';
import { ChannelDuplex, type DuplexOptions } from './duplex.js';
import { busy } from './ends.js';
import { carry, type ForwardTarget, type Importer } from './forward.js';
import { MessageIterator } from './iterator.js';
import { Life } from './life.js';
import { Link } from './link.js';
import type { Loan } from './loan.js';
import type { Message, MessageCursor } from './message.js';
import type {
  CloseReason,
  MessageOptions,
  RequestOptions,
  TrySendOptions,
  WaitOptions,
} from './options.js';
import type { ChannelParts } from './parts.js';
import { Receiver } from './receiver.js';
import { RecordWaits } from './records.js';
import { Requests } from './requests.js';
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
  readonly #life: Life;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #link: Link;
  readonly #importer: Importer;
  readonly #spinner: Spinner;
  readonly #space: SpaceWaits;
  readonly #records: RecordWaits;
  readonly #requests: Requests;
  readonly #alive: KeepAlive = new KeepAlive();
  #reader = false;
  #ringsReceived = 0;

  /** @internal For `listen` and `connect`. */
  constructor(parts: ChannelParts) {
    this.name = parts.name;
    this.peer = parts.peer;
    this.#life = new Life(parts);
    this.closed = this.#life.closed;
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
        carry(this.#receiver, message, parts.origin, to.target, signal),
      requests: () => this.#requests,
      onIdle: () => this.#life.maybeDispose(),
    });
    this.#spinner = new Spinner(parts.spinMicros);
    this.#space = new SpaceWaits(this.#sender, this.#spinner);
    this.#records = new RecordWaits(this.#receiver, this.#spinner, {
      atEnd: () => this.#life.atEnd(),
      failed: (error) => this.#failed(error),
    });
    this.#requests = new Requests({
      sender: this.#sender,
      space: this.#space,
      records: this.#records,
      setAside: () => this.#receiver.setAside(),
      ended: () => this.#life.notOpen(),
      failed: (error) => this.#failed(error),
    });
    this.#importer = parts.importer;
    this.#importer.start((bytes) => this.#link.sendFrame(bytes), this.#receiver);
    this.#link = new Link(parts.fd, parts.pidfd, {
      onReadable: () => this.#records.serveNews(),
      onRing: () => this.#onRing(),
      onFrame: (bytes) => this.#orFail(() => this.#importer.onFrame(bytes)),
      onHangUp: () => this.#life.onHangUp(),
      onError: (error) => this.#life.fail(error),
    });
    this.#life.start({
      sender: this.#sender,
      receiver: this.#receiver,
      link: this.#link,
      space: this.#space,
      records: this.#records,
      requests: this.#requests,
      alive: this.#alive,
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
    if (this.#life.closing) throw this.#life.error ?? this.#life.closedError();
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
    if (this.#life.closing) throw this.#life.error ?? this.#life.closedError();
    await this.#space.when(
      () => this.#guard(() => this.#sender.trySend(bytes, type, id, true) || undefined),
      signal,
    );
  }

  /**
   * Sends a request and resolves with the reply; release that like any message. Many may be under
   * way, and their replies come in any order. The body may be a loan of this channel. Replies come
   * also while nobody reads the channel: what comes before them waits for the next reader.
   *
   * @throws UkshmError `ERR_UKSHM_REMOTE` (a `RemoteError`) when the other side answered with an
   * error, `ERR_UKSHM_PEER_GONE` or `ERR_UKSHM_PEER_CLOSED` at once when it ends, `ERR_UKSHM_LIMIT`
   * beyond 65 536 requests, as `tryLoan`; the signal's reason.
   */
  request(body: Uint8Array | Loan, options?: RequestOptions): Promise<Message> {
    return this.#requests.request(body, options);
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
    return this.#drain(handler, limit);
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
    if (this.#life.closing) return Promise.reject(this.#life.closedError());
    return this.#readable(options?.signal);
  }

  /** Looks on for up to `micros` without sleeping; `true` as soon as messages wait. Blocks. */
  spin(micros: number): boolean {
    if (this.#life.disposed) return false;
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
      claim: () => this.#claim(),
      unclaim: () => {
        this.#reader = false;
      },
      take: () => {
        if (this.#life.disposed || this.#records.turnIsOver()) return undefined;
        try {
          return this.#receiver.next();
        } catch (error) {
          throw this.#failed(error);
        }
      },
      readable: () => this.#readable(undefined),
    });
  }

  /**
   * The channel as a stream of bytes; the other side must use it as one too. The stream is then the
   * channel's one consumer, and closes it when both directions have ended, or on an error.
   *
   * @throws UkshmError `ERR_UKSHM_BUSY`.
   */
  duplex(options: DuplexOptions = {}): Duplex {
    this.#claim();
    return new ChannelDuplex(
      {
        messageBytesMax: this.#sender.messageBytesMax,
        trySend: (bytes) => this.trySend(bytes),
        send: (bytes) => this.send(bytes),
        readable: () => this.#readable(undefined),
        drain: (handler, limit) => this.#drain(handler, limit),
        close: (closeOptions) => this.close(closeOptions),
        unclaim: () => {
          this.#reader = false;
        },
      },
      options,
    );
  }

  /** How the memory is used now, and what happened so far. */
  stats(): ChannelStats {
    try {
      // Reads what the peer has released meanwhile.
      if (!this.#life.ended) this.#sender.drained();
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
    return this.#life.close(options?.signal);
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

  /** @internal What forwarding and patterns/ send through. */
  get target(): ForwardTarget {
    return {
      importer: this.#importer,
      sender: this.#sender,
      space: this.#space,
      guard: (action) => this.#guard(action),
    };
  }

  #claim(): void {
    if (this.#reader || this.#receiver.draining) throw busy(this.name);
    this.#reader = true;
  }

  #drain(handler: (message: MessageCursor) => void, limit: number): number {
    if (this.#life.disposed) return this.#life.nothingLeft();
    try {
      return this.#receiver.drain(handler, limit);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #readable(signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#records.waiting) return Promise.reject(busy(this.name));
    return this.#records.readable(signal);
  }

  /** @returns whether anything was new. */
  #onRing(): boolean {
    this.#ringsReceived++;
    let fresh = true;
    this.#orFail(() => {
      const records = this.#receiver.news();
      const released = this.#sender.collect();
      if (this.#receiver.peerClosing()) this.#life.onPeerClosing();
      const read = this.#records.serve();
      const sent = !this.#life.ended && this.#space.serve();
      fresh = records || released || read || sent;
    });
    return fresh;
  }

  #orFail(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#life.fail(error);
    }
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
      this.#life.fail(error);
    }
    return error;
  }
}
