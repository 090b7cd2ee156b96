// A listener: a name at which one meets. It admits, makes both outboxes, and hands out channels.

import { EPOLLIN } from '../../abi/epoll.js';
import { EAGAIN, EINTR } from '../../abi/errno.js';
import { checkInteger } from '../../core/check.js';
import { closedError, UkshmError } from '../../core/errors.js';
import { ARENA_BYTES_MAX } from '../../memory/outbox-layout.js';
import type { Wish } from '../../memory/region.js';
import { after } from '../../sys/clock.js';
import { KeepAlive } from '../../sys/keep-alive.js';
import { closeDescriptor } from '../../sys/memory.js';
import { poller } from '../../sys/poller.js';
import { ownPid, ownUid } from '../../sys/process.js';
import { accept, type Credentials, peerCredentials, refuseDescriptors } from '../../sys/socket.js';
import type { Channel } from '../channel.js';
import type { WaitOptions } from '../options.js';
import { Waiters } from '../waiters.js';
import { type Access, admits, checkAccess } from './access.js';
import { type Address, addressOfName, listenAt, removeStale } from './address.js';
import { type ExportedOutbox, type Greeting, greet } from './greeting.js';
import {
  ARENA_BYTES_DEFAULT,
  checkArenaBytes,
  checkRingBytes,
  type EndOptions,
  endSettings,
  MEETING_TIMEOUT_MS,
  RING_BYTES_DEFAULT,
} from './meeting.js';

/** Meetings under way at a time, in all and with one process. */
const MEETINGS_MAX = 256;
const MEETINGS_PER_PROCESS_MAX = 32;
const ACCEPTS_PER_TURN = 16;
const RETRY_MS = 100;

/** How a listener is to be. */
export interface ListenOptions extends EndOptions {
  /** Who may connect (and import what is forwarded). Default `'same-user'`. */
  readonly access?: Access;
  /** Record ring of each direction unless the connector asks otherwise. Default 256 KiB. */
  readonly ringBytes?: number;
  /** Arena of each direction unless the connector asks otherwise. Default 4 MiB. */
  readonly arenaBytes?: number;
  /** What a connector may ask for. Default: the greater of 64 MiB and `arenaBytes`. */
  readonly maxArenaBytes?: number;
  /** Shared memory of one user's channels together. Default 1 GiB. */
  readonly maxBytesPerUser?: number;
  /** Channels at a time. Default 1024. */
  readonly maxChannels?: number;
  /** How long a meeting may last. Default 5000. */
  readonly handshakeTimeoutMs?: number;
  /** Lock the memory of channels: never swapped. Default false. */
  readonly wired?: Wish;
  /** Huge pages for the memory of channels. Default false. */
  readonly hugePages?: Wish;
  /** Closes the listener. */
  readonly signal?: AbortSignal;
}

/** What `ukshm ls` tells of a listener. */
export interface ListenerInfo {
  readonly name: string;
  readonly kind: 'abstract' | 'path';
  readonly pid: number;
  readonly uid: number;
  readonly channels: readonly {
    readonly peerPid: number;
    readonly sharedBytes: number;
    readonly bytesInUse: number;
  }[];
  /** Why no more is known, where that is so. */
  readonly note?: string;
}

/** A name at which others connect; iterate over it for their channels. */
export class Listener implements AsyncIterable<Channel> {
  readonly name: string;
  readonly #address: Address;
  readonly #greeting: Greeting;
  #fd = -1;
  readonly #ready: Channel[] = [];
  readonly #waiters: Waiters = new Waiters();
  readonly #meetings: Map<number, number> = new Map();
  readonly #alive: KeepAlive = new KeepAlive();
  #meetingCount = 0;
  #paused = false;
  #closed = false;

  /** @internal For `listen`. */
  constructor(address: Address, options: ListenOptions) {
    this.name = address.name;
    this.#address = address;
    const arenaBytes = checkArenaBytes('arenaBytes', options.arenaBytes ?? ARENA_BYTES_DEFAULT);
    const most = Math.max(64 * 2 ** 20, arenaBytes);
    this.#greeting = {
      name: address.name,
      address,
      access: checkAccess('access', options.access ?? 'same-user'),
      ringBytes: checkRingBytes('ringBytes', options.ringBytes ?? RING_BYTES_DEFAULT),
      arenaBytes,
      maxArenaBytes: checkArenaBytes('maxArenaBytes', options.maxArenaBytes ?? most),
      maxBytesPerUser: checkInteger(
        'maxBytesPerUser',
        options.maxBytesPerUser ?? ARENA_BYTES_MAX,
        0,
        Number.MAX_SAFE_INTEGER,
      ),
      maxChannels: checkInteger('maxChannels', options.maxChannels ?? 1024, 1, 1e6),
      timeoutMs: checkInteger(
        'handshakeTimeoutMs',
        options.handshakeTimeoutMs ?? MEETING_TIMEOUT_MS,
        1,
        600000,
      ),
      wired: options.wired ?? false,
      hugePages: options.hugePages ?? false,
      settings: endSettings(options),
      channels: new Map(),
      exports: new Map(),
      promised: { channels: 0 },
      bytesByUser: new Map(),
      info: () => this.info(),
    };
  }

  /** @internal For `listen`: takes the name. */
  async open(signal: AbortSignal | undefined): Promise<void> {
    this.#fd = await listenAt(this.#address);
    poller().watch(this.#fd, EPOLLIN, () => this.#onConnections());
    this.#alive.start();
    signal?.addEventListener('abort', () => void this.close(), { once: true });
    if (!signal?.aborted) return;
    await this.close();
    throw signal.reason;
  }

  /** The next channel. @throws UkshmError `ERR_UKSHM_CLOSED`; the signal's reason. */
  accept(options?: WaitOptions): Promise<Channel> {
    const next = this.#waiters.count === 0 ? this.#ready.shift() : undefined;
    if (next !== undefined) return Promise.resolve(next);
    if (this.#closed) return Promise.reject(closedError(`the listener '${this.name}'`));
    return this.#waiters.wait(() => this.#ready.shift(), options?.signal);
  }

  /** Channels in the order in which they were made, until the listener is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Channel, void, void> {
    while (!this.#closed || this.#ready.length > 0) {
      try {
        yield await this.accept();
      } catch (error) {
        if (error instanceof UkshmError && error.code === 'ERR_UKSHM_CLOSED') return;
        throw error;
      }
    }
  }

  /** Frees the name. Channels that were handed out live on; those that were not are closed. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    poller().unwatch(this.#fd);
    closeDescriptor(this.#fd);
    this.#alive.end();
    this.#waiters.failAll(closedError(`the listener '${this.name}'`));
    const aborted = AbortSignal.abort();
    await Promise.allSettled(
      this.#ready.splice(0).map((channel) => channel.close({ signal: aborted })),
    );
    await removeStale(this.#address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keeps the process alive while listening (the default). */
  ref(): this {
    this.#alive.ref();
    return this;
  }

  /** Lets the process end while listening. */
  unref(): this {
    this.#alive.unref();
    return this;
  }

  /** What `ukshm ls` shows. */
  info(): ListenerInfo {
    const channels = [...this.#greeting.channels.entries()].map(([channel, sharedBytes]) => {
      const { bytesLent, ringBytesUsed } = channel.stats();
      return { peerPid: channel.peer.pid, sharedBytes, bytesInUse: bytesLent + ringBytesUsed };
    });
    const kind = this.#address.abstract ? 'abstract' : 'path';
    return { name: this.name, kind, pid: ownPid(), uid: ownUid(), channels };
  }

  /**
   * Where messages of other channels of this process may be imported. For `forwardVia`.
   * @internal
   */
  get exports(): Map<string, ExportedOutbox> {
    return this.#greeting.exports;
  }

  /**
   * `sockaddr_un`. For `forwardVia`.
   * @internal
   */
  get addressBytes(): Uint8Array {
    return this.#address.bytes;
  }

  #onConnections(): void {
    for (let i = 0; i < ACCEPTS_PER_TURN; i++) {
      if (this.#closed) return;
      if (this.#meetingCount >= MEETINGS_MAX) {
        this.#pause();
        return;
      }
      const fd = accept(this.#fd);
      if (fd === -EAGAIN) return;
      if (fd === -EINTR) continue;
      if (fd < 0) {
        // No descriptors or memory left: the connection waits in the backlog meanwhile.
        this.#pause();
        return;
      }
      refuseDescriptors(fd);
      this.#meet(fd);
    }
  }

  #meet(fd: number): void {
    let peer: Credentials;
    try {
      peer = peerCredentials(fd);
    } catch {
      closeDescriptor(fd);
      return;
    }
    const before = this.#meetings.get(peer.pid) ?? 0;
    const full = before >= MEETINGS_PER_PROCESS_MAX;
    let admitted = false;
    try {
      admitted = admits(this.#greeting.access, peer);
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
    this.#meetings.set(peer.pid, before + 1);
    this.#meetingCount++;
    greet(this.#greeting, fd, peer, full ? 'limit' : admitted ? undefined : 'access').then(
      (channel) => {
        this.#met(peer.pid);
        if (channel === undefined) return;
        if (this.#closed) void channel.close({ signal: AbortSignal.abort() }).catch(() => {});
        else this.#ready.push(channel);
        this.#waiters.serve();
      },
      () => this.#met(peer.pid),
    );
  }

  #met(pid: number): void {
    this.#meetingCount--;
    const left = (this.#meetings.get(pid) ?? 1) - 1;
    if (left === 0) this.#meetings.delete(pid);
    else this.#meetings.set(pid, left);
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    poller().change(this.#fd, 0);
    after(RETRY_MS, () => {
      this.#paused = false;
      if (!this.#closed) poller().change(this.#fd, EPOLLIN);
    });
  }
}

/**
 * Listens at `name`: an abstract name (letters, digits, '.', '_', '-'), which vanishes with this
 * process, or a path (with '/'), for containers that share a folder.
 *
 * @throws UkshmError `ERR_UKSHM_NAME_IN_USE` and who has it, `ERR_UKSHM_INVALID_ARGUMENT`.
 */
export async function listen(name: string, options: ListenOptions = {}): Promise<Listener> {
  options.signal?.throwIfAborted();
  const listener = new Listener(addressOfName(name), options);
  await listener.open(options.signal);
  return listener;
}
