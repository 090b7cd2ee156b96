// The one who sets values. Readers map its table and copy out of it; nobody holds it up.
import { basename } from 'node:path';
import type { Channel } from '../../channel/channel.js';
import type { ForwardTarget } from '../../channel/forward.js';
import type { Access } from '../../channel/meeting/access.js';
import { type Listener, listen } from '../../channel/meeting/listener.js';
import { MEETING_TIMEOUT_MS } from '../../channel/meeting/meeting.js';
import { SharedRegion } from '../../channel/meeting/shared-region.js';
import { unlessAborted } from '../../channel/waiters.js';
import { checkInteger } from '../../core/check.js';
import { closedError, invalidArgument, UkshmError } from '../../core/errors.js';
import { roundUp } from '../../core/u32.js';
import {
  ARENA_BYTES_MAX,
  ARENA_UNIT_BYTES,
  outboxLayout,
  RING_BYTES_MIN,
} from '../../memory/outbox-layout.js';
import {
  endAtOnce,
  endIfLie,
  readWish,
  refuse,
  TimeLimit,
  TYPE_DATA,
  TYPE_JOIN,
} from '../joining.js';
import { KEYS_MAX, type TableLayout, tableLayout, VALUE_BYTES_MAX } from './layout.js';
import { TableWriter } from './table-writer.js';

const NOTICE = new Uint8Array(0);

/** How a table of values is to be. */
export interface ValuesOptions {
  /** Who may read. Default `'same-user'`. */
  readonly access?: Access;
  /** Keys at a time, 1 to 65 536. Default 1024. */
  readonly maxKeys?: number;
  /** The longest value, up to 16 MiB. Default 1024. A key takes four times this and 128 bytes. */
  readonly valueBytesMax?: number;
  /** Readers at a time. Default 4096. */
  readonly maxReaders?: number;
  /** Closes the table. */
  readonly signal?: AbortSignal;
}

/** Values by keys, set by this process alone and read by others. Made by `openValues`. */
export class ValueWriter {
  readonly name: string;
  readonly #listener: Listener;
  readonly #region: SharedRegion;
  readonly #layout: TableLayout;
  readonly #table: TableWriter;
  readonly #readers: Map<Channel, ForwardTarget> = new Map();
  readonly #joining: Set<Channel> = new Set();
  #refed = true;
  #noticeDue = false;
  #closing: Promise<void> | undefined = undefined;

  private constructor(listener: Listener, region: SharedRegion, layout: TableLayout) {
    const { arenaOffset } = region.layout;
    this.name = listener.name;
    this.#listener = listener;
    this.#region = region;
    this.#layout = layout;
    const bytes = region.mapping.bytes.subarray(arenaOffset, arenaOffset + layout.totalBytes);
    this.#table = new TableWriter(bytes, layout);
    void this.#admitAll();
  }

  /** @internal For `openValues`. */
  static async open(name: string, options: ValuesOptions): Promise<ValueWriter> {
    const { access, signal } = options;
    const maxReaders = checkInteger('maxReaders', options.maxReaders ?? 4096, 1, 65536);
    const maxKeys = checkInteger('maxKeys', options.maxKeys ?? 1024, 1, KEYS_MAX);
    const { valueBytesMax = 1024 } = options;
    const layout = tableLayout(
      maxKeys,
      checkInteger('valueBytesMax', valueBytesMax, 0, VALUE_BYTES_MAX),
    );
    const arenaBytes = roundUp(layout.totalBytes, ARENA_UNIT_BYTES);
    if (arenaBytes > ARENA_BYTES_MAX) {
      throw invalidArgument(
        'valueBytesMax',
        valueBytesMax,
        `less for ${maxKeys} keys: 1 GiB in all`,
      );
    }
    signal?.throwIfAborted();
    const listener = await listen(name, {
      ...(access === undefined ? {} : { access }),
      ringBytes: RING_BYTES_MIN,
      arenaBytes: 0,
      maxArenaBytes: 0,
      maxChannels: maxReaders,
      maxBytesPerUser: 2 * maxReaders * outboxLayout(RING_BYTES_MIN, 0).totalBytes,
    });
    try {
      const region = await SharedRegion.create(listener, arenaBytes);
      const writer = new ValueWriter(listener, region, layout);
      signal?.addEventListener('abort', () => void writer.close(), { once: true });
      if (signal?.aborted) await writer.close();
      signal?.throwIfAborted();
      return writer;
    } catch (error) {
      await listener.close();
      throw error;
    }
  }

  /** Keys that have a value. */
  get size(): number {
    return this.#table.size;
  }

  /** Who reads now. */
  get readerCount(): number {
    return this.#readers.size;
  }

  /** The keys that have a value. */
  keys(): IterableIterator<string> {
    return this.#table.keys;
  }

  /** Whether the key has a value. */
  has(key: string): boolean {
    return this.#table.has(key);
  }

  /**
   * Makes `bytes` the value of `key`: readers have it at once. Those that wait for changes are woken
   * when the code that runs now has ended. Never blocks.
   *
   * @param key - 1 to 116 bytes of UTF-8.
   * @throws UkshmError `ERR_UKSHM_MESSAGE_TOO_LONG`, `ERR_UKSHM_LIMIT` (no room for one more key),
   * `ERR_UKSHM_INVALID_ARGUMENT`, `ERR_UKSHM_CLOSED`.
   */
  set(key: string, bytes: Uint8Array): void {
    this.#checkOpen();
    const { length } = bytes;
    if (!(length <= this.#layout.valueBytesMax)) {
      throw new UkshmError(
        'ERR_UKSHM_MESSAGE_TOO_LONG',
        `a value of ${length} bytes; '${this.name}' takes up to ${this.#layout.valueBytesMax}: ` +
          'ask for more in openValues(name, { valueBytesMax })',
      );
    }
    this.#table.set(key, bytes);
    this.#notify();
  }

  /** Takes a key's value away. @returns whether it had one. @throws `ERR_UKSHM_CLOSED`. */
  delete(key: string): boolean {
    this.#checkOpen();
    const had = this.#table.delete(key);
    if (had) this.#notify();
    return had;
  }

  /** Ends the table. Readers keep the last values until they close. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keeps the process alive while the table is open (the default). */
  ref(): this {
    this.#refed = true;
    this.#listener.ref();
    for (const channel of this.#readers.keys()) channel.ref();
    return this;
  }

  /** Lets the process end while the table is open. */
  unref(): this {
    this.#refed = false;
    this.#listener.unref();
    for (const channel of this.#readers.keys()) channel.unref();
    return this;
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw closedError(`the table of values '${this.name}'`);
  }

  async #close(): Promise<void> {
    await Promise.all([
      this.#listener.close(),
      ...[...this.#joining, ...this.#readers.keys()].map(endAtOnce),
    ]);
    this.#region.close();
  }

  async #admitAll(): Promise<void> {
    for await (const channel of this.#listener) void this.#admit(channel);
  }

  async #admit(channel: Channel): Promise<void> {
    this.#joining.add(channel);
    try {
      const { values } = await readWish(channel);
      // Where folders are mounted elsewhere, the last part of a path is the same.
      if (typeof values !== 'string' || basename(values) !== basename(this.name)) {
        throw new UkshmError('ERR_UKSHM_NOT_OFFERED', `here are the values of '${this.name}' only`);
      }
      await this.#lend(channel);
    } catch (error) {
      await refuse(channel, error);
    } finally {
      this.#joining.delete(channel);
    }
  }

  /** Lends the whole table, as one message that the reader keeps. */
  async #lend(channel: Channel): Promise<void> {
    const { target } = channel;
    const { importer, sender } = target;
    const exported = importer.handOut(this.#region.origin);
    const limit = new TimeLimit(MEETING_TIMEOUT_MS);
    try {
      await unlessAborted(exported.ready, limit.signal);
    } finally {
      limit.end();
    }
    this.#checkOpen();
    const { arenaOffset } = this.#region.layout;
    const lent = { comeBack: () => {} };
    sender.tryLend(lent, exported.region, arenaOffset, this.#layout.totalBytes, TYPE_JOIN, 0);
    sender.publish();
    this.#readers.set(channel, target);
    if (!this.#refed) channel.unref();
    void channel.closed.then(() => this.#readers.delete(channel));
  }

  /** Many values that are set in a row make one notice. */
  #notify(): void {
    if (this.#noticeDue || this.#readers.size === 0) return;
    this.#noticeDue = true;
    queueMicrotask(() => {
      this.#noticeDue = false;
      for (const target of this.#readers.values()) notice(target);
    });
  }
}

/** A reader that has not taken its last notice will look at the table anyway. */
function notice(target: ForwardTarget): void {
  const { sender } = target;
  try {
    // SEQ_CST: the value was counted before this looks at the reader's head. The reader moves its
    // head on, then looks at the count.
    sender.drained();
    if (sender.ringBytesUsed === 0) sender.trySend(NOTICE, TYPE_DATA, 0, true);
  } catch (error) {
    endIfLie(target, error);
  }
}

/**
 * Takes `name` (as `listen` does) and sets values there, which others read without asking.
 *
 * @throws UkshmError `ERR_UKSHM_NAME_IN_USE` and who has it, `ERR_UKSHM_INVALID_ARGUMENT`,
 * `ERR_UKSHM_NO_MEMORY`.
 */
export function openValues(name: string, options: ValuesOptions = {}): Promise<ValueWriter> {
  return ValueWriter.open(name, options);
}
