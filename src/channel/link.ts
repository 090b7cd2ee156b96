// The socket of a channel after the meeting: doorbell, frames, and the news of the peer's death.
//
// The peer is gone when the socket hangs up or its pidfd becomes readable, whichever is first (a
// dead peer's child may have inherited the socket). A peer that rings without having published is
// listened to at growing intervals; its hang-up is noticed at once all the same.

import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../abi/epoll.js';
import { EAGAIN, EINTR } from '../abi/errno.js';
import { peerMisbehaved } from '../core/errors.js';
import { after } from '../sys/clock.js';
import { closeDescriptor } from '../sys/memory.js';
import { poller } from '../sys/poller.js';
import { receive, send } from '../sys/socket.js';
import { FRAME_BYTES, FRAME_RING } from './frames.js';

const HUNG_UP = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
const RING_BYTES: Uint8Array = new Uint8Array([FRAME_RING]);
/** Rings in a row without anything new before the intervals begin to grow. */
const IDLE_RINGS_MAX = 64;
const DEAF_MS_MAX = 128;
/** Frames waiting to be sent: more means that the peer does not read. */
const QUEUE_MAX = 1024;

/** What a link tells its channel. */
export interface LinkEvents {
  /**
   * The peer has probably rung, which is not read yet: serves those who wait for records.
   * @returns whether any was served.
   */
  onReadable(): boolean;
  /** The peer rang. @returns whether anything was new. */
  onRing(): boolean;
  onFrame(bytes: Uint8Array): void;
  onHangUp(): void;
  onError(error: Error): void;
}

export class Link {
  readonly #fd: number;
  readonly #pidfd: number;
  readonly #events: LinkEvents;
  readonly #buffer: Uint8Array = new Uint8Array(1024);
  readonly #queue: Uint8Array[] = [];
  #filled = 0;
  #idleRings = 0;
  #deafMs = 0;
  #cancelDeaf: (() => void) | undefined = undefined;
  #closed = false;

  /** Takes both descriptors over; `pidfd` may be negative where the kernel has none. */
  constructor(fd: number, pidfd: number, events: LinkEvents) {
    this.#fd = fd;
    this.#pidfd = pidfd;
    this.#events = events;
    poller().watch(fd, EPOLLIN | EPOLLRDHUP, (ready) => this.#onReady(ready));
    if (pidfd >= 0) poller().watch(pidfd, EPOLLIN, () => this.#onDeath());
  }

  /** Wakes the peer; never blocks. A full socket means that it was rung already. */
  ring(): void {
    if (!this.#closed) send(this.#fd, RING_BYTES);
  }

  /** Sends a frame now or as soon as the socket takes it. */
  sendFrame(bytes: Uint8Array): void {
    if (this.#closed) return;
    this.#queue.push(bytes);
    this.#flush();
    if (this.#queue.length > QUEUE_MAX) {
      this.#events.onError(peerMisbehaved('it does not read its socket'));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelDeaf?.();
    poller().unwatch(this.#fd);
    closeDescriptor(this.#fd);
    if (this.#pidfd < 0) return;
    poller().unwatch(this.#pidfd);
    closeDescriptor(this.#pidfd);
  }

  #onReady(ready: number): void {
    // Reading the socket takes some 2 µs: whoever waits for a message has it, and has answered it,
    // before that.
    if (ready === EPOLLIN && this.#events.onReadable()) {
      poller().defer(this.#readServed);
      return;
    }
    if ((ready & EPOLLIN) !== 0) this.#read(false);
    if (!this.#closed && (ready & EPOLLOUT) !== 0) this.#flush();
    if (!this.#closed && (ready & HUNG_UP) !== 0) this.#hangUp();
  }

  #onDeath(): void {
    // What the dead one sent before is still in the socket.
    this.#read(false);
    if (!this.#closed) this.#hangUp();
  }

  readonly #readServed = (): void => {
    if (!this.#closed) this.#read(true);
  };

  #hangUp(): void {
    this.close();
    this.#events.onHangUp();
  }

  /** @param served - somebody was served already by what these bytes tell. */
  #read(served: boolean): void {
    const free = this.#filled === 0 ? this.#buffer : this.#buffer.subarray(this.#filled);
    const result = receive(this.#fd, free);
    if (result === -EAGAIN || result === -EINTR) return;
    if (result <= 0) {
      this.#hangUp();
      return;
    }
    const end = this.#filled + result;
    let at = 0;
    let rang = false;
    while (at < end && !this.#closed) {
      const type = this.#buffer[at] as number;
      const length = FRAME_BYTES[type] ?? 0;
      if (length === 0) {
        this.#events.onError(peerMisbehaved(`a frame of unknown type ${type}`));
        return;
      }
      if (at + length > end) break;
      if (type === FRAME_RING) rang = true;
      else this.#events.onFrame(this.#buffer.slice(at, at + length));
      at += length;
    }
    if (at < end) this.#buffer.copyWithin(0, at, end);
    this.#filled = end - at;
    if (rang && !this.#closed) this.#onRing(served);
  }

  #onRing(served: boolean): void {
    if (this.#events.onRing() || served) {
      this.#idleRings = 0;
      this.#deafMs = 0;
      return;
    }
    this.#idleRings++;
    if (this.#closed || this.#idleRings < IDLE_RINGS_MAX) return;
    this.#deafMs = Math.min(Math.max(1, this.#deafMs * 2), DEAF_MS_MAX);
    poller().change(this.#fd, EPOLLRDHUP);
    this.#cancelDeaf = after(this.#deafMs, () => {
      this.#cancelDeaf = undefined;
      if (!this.#closed) this.#listen();
    });
  }

  #flush(): void {
    while (this.#queue.length > 0) {
      const bytes = this.#queue[0] as Uint8Array;
      const result = send(this.#fd, bytes);
      if (result < 0) break;
      if (result < bytes.length) this.#queue[0] = bytes.subarray(result);
      else this.#queue.shift();
    }
    this.#listen();
  }

  #listen(): void {
    if (this.#cancelDeaf !== undefined) return;
    const writing = this.#queue.length > 0 ? EPOLLOUT : 0;
    poller().change(this.#fd, EPOLLIN | EPOLLRDHUP | writing);
  }
}
