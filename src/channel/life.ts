// How a channel ends.
//
//     open → closing (close() here) → ended (the peer drained, closed or died)
//     open → ended (the peer closed, died or misbehaved; what it had published is still delivered)
//     ended → disposed (close() here, or nothing of the peer's is held any more)
//     prohibited: ended → open; disposed → anything
import { closedError, UkshmError } from '../core/errors.js';
import { STATE_CLOSING } from '../memory/outbox-layout.js';
import type { KeepAlive } from '../sys/keep-alive.js';
import { peerClosed, peerGone } from './ends.js';
import type { Link } from './link.js';
import type { CloseReason } from './options.js';
import type { ChannelParts } from './parts.js';
import type { Receiver } from './receiver.js';
import type { RecordWaits } from './records.js';
import type { Requests } from './requests.js';
import type { Sender } from './sender.js';
import type { SpaceWaits } from './space.js';

/** What of a channel is brought to its end. */
export interface Organs {
  readonly sender: Sender;
  readonly receiver: Receiver;
  readonly link: Link;
  readonly space: SpaceWaits;
  readonly records: RecordWaits;
  readonly requests: Requests;
  readonly alive: KeepAlive;
}

export class Life {
  /** Resolves when the channel has ended, and with why. Never rejects. */
  readonly closed: Promise<CloseReason>;
  readonly #parts: ChannelParts;
  #organs: Organs | undefined = undefined;
  #resolveClosed: (reason: CloseReason) => void = () => {};
  #end: CloseReason | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #disposed = false;

  constructor(parts: ChannelParts) {
    this.#parts = parts;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** The channel is whole. */
  start(organs: Organs): void {
    this.#organs = organs;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  get closing(): boolean {
    return this.#closing !== undefined;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Why the channel ended, where that is an error. */
  get error(): UkshmError | undefined {
    return this.#end?.error;
  }

  closedError(): UkshmError {
    return closedError(`the channel '${this.#parts.name}'`);
  }

  /** With nothing to read: whether nothing more comes; throws if the peer died. */
  atEnd(): boolean {
    if (this.#end === undefined) {
      return this.#closing !== undefined || this.#whole.receiver.peerClosing();
    }
    this.maybeDispose();
    if (this.#end.error !== undefined) throw this.#end.error;
    return true;
  }

  /** Why nothing is asked or answered any more; `undefined` while the channel is open. */
  notOpen(): UkshmError | undefined {
    if (this.#closing !== undefined) return this.closedError();
    if (this.#end?.error !== undefined) return this.#end.error;
    const over = this.#end !== undefined || this.#whole.receiver.peerClosing();
    return over ? this.#peerClosed() : undefined;
  }

  /** What a drain of a disposed channel answers. */
  nothingLeft(): 0 {
    if (this.#end?.reason === 'peer-closed') return 0;
    throw this.#end?.error ?? this.closedError();
  }

  close(signal: AbortSignal | undefined): Promise<void> {
    this.#closing ??= this.#close(signal);
    return this.#closing;
  }

  /** The peer reads nothing more. */
  onPeerClosing(): void {
    const { sender, space } = this.#whole;
    const error = this.#peerClosed();
    sender.stop(error);
    if (this.#closing === undefined) space.fail(error);
  }

  onHangUp(): void {
    const error = peerGone(this.#parts.peer, this.#parts.name);
    const reason = this.#closing === undefined ? 'peer-closed' : 'closed';
    this.#finish(this.#whole.receiver.peerClosing() ? { reason } : { reason: 'peer-gone', error });
  }

  /** The peer misbehaved; anything else that was thrown is thrown on. */
  fail(error: unknown): void {
    if (!(error instanceof UkshmError)) throw error;
    this.#finish({ reason: 'peer-misbehaved', error });
  }

  /** Frees the memory of an ended channel once everything was read and released. */
  maybeDispose(): void {
    if (this.#end === undefined || this.#disposed || this.#end.reason === 'closed') return;
    if (this.#whole.receiver.idle) this.#dispose();
  }

  async #close(signal: AbortSignal | undefined): Promise<void> {
    const { requests } = this.#whole;
    try {
      requests.fail(this.closedError());
      if (this.#end === undefined) await this.#drainOut(signal);
    } catch (error) {
      // The peer died or misbehaved meanwhile: then the channel has ended, which was the wish.
      if (signal?.aborted) throw error;
    } finally {
      // Also where the signal came first: the peer shall not take this side for dead.
      if (this.#end === undefined) this.#sayClosing();
      this.#finish({ reason: 'closed' });
      this.#dispose();
    }
  }

  /** Waiting sends are finished; then the peer reads and releases all, closes, or is gone. */
  async #drainOut(signal: AbortSignal | undefined): Promise<void> {
    const { space, receiver, sender } = this.#whole;
    const stopped = (): true => {
      this.#sayClosing();
      return true;
    };
    const drained = (): true | undefined =>
      this.#end !== undefined || receiver.peerClosing() || sender.drained() ? true : undefined;
    await space.when(stopped, signal);
    await space.when(drained, signal);
  }

  #sayClosing(): void {
    const { sender, receiver, link } = this.#whole;
    sender.stop(this.closedError());
    sender.publish();
    receiver.markClosing(STATE_CLOSING);
    link.ring();
  }

  /** The channel has ended: the memory stays until nothing of it is held. */
  #finish(end: CloseReason): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    const { receiver, link, alive, sender, space, records } = this.#whole;
    receiver.end();
    const misbehaved = end.reason === 'peer-misbehaved';
    if (!misbehaved) receiver.freeze();
    link.close();
    alive.end();
    const error = end.error ?? (end.reason === 'closed' ? this.closedError() : this.#peerClosed());
    sender.stop(error);
    sender.revoke();
    this.#parts.importer.stop(error);
    this.#parts.origin?.end();
    space.end(error);
    if (misbehaved) this.#dispose();
    records.end(error);
    this.maybeDispose();
    this.#parts.onEnd();
    this.#resolveClosed(end);
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#whole.receiver.close();
    this.#parts.own.close();
  }

  #peerClosed(): UkshmError {
    return peerClosed(this.#parts.peer, this.#parts.name);
  }

  get #whole(): Organs {
    return this.#organs as Organs;
  }
}
