// One who reads values: out of the writer's memory, without a system call, a lock or a question.
import type { Channel } from '../../channel/channel.js';
import type { Message } from '../../channel/message.js';
import type { CloseReason, WaitOptions } from '../../channel/options.js';
import { closedError, UkshmError } from '../../core/errors.js';
import type { Credentials } from '../../sys/socket.js';
import { endAtOnce, endIfLie, type JoinOptions, join } from '../joining.js';
import { type Change, TableReader } from './table-reader.js';

/** The values of another process. Made by `readValues`. */
export class ValueReader implements AsyncIterable<Change> {
  readonly name: string;
  /** Who sets them, as the kernel reported it. */
  readonly writer: Credentials;
  /** Resolves when no more values will come, and with why; those that came can be read on. */
  readonly closed: Promise<CloseReason>;
  readonly #channel: Channel;
  /** The table, in place; it is ours until this is closed. */
  readonly #held: Message;
  readonly #table: TableReader;
  #closed = false;

  /** @internal For `readValues`. */
  constructor(channel: Channel, held: Message, table: TableReader) {
    this.name = channel.name;
    this.writer = channel.peer;
    this.closed = channel.closed;
    this.#channel = channel;
    this.#held = held;
    this.#table = table;
  }

  /**
   * The newest value of `key`: whole, a copy of its own; `undefined` if it has none. It stays
   * readable after the writer's end.
   *
   * @throws UkshmError `ERR_UKSHM_CLOSED`, `ERR_UKSHM_PEER_MISBEHAVED`.
   */
  get(key: string): Uint8Array | undefined {
    this.#checkOpen();
    try {
      return this.#table.get(key);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /**
   * Copies the newest value of `key` to the start of `target`: as `get`, without a new array.
   * @returns its length, or -1 if it has none.
   * @throws RangeError when `target` is shorter than the value; as `get`.
   */
  getInto(key: string, target: Uint8Array): number {
    this.#checkOpen();
    try {
      return this.#table.getInto(key, target);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** A u32 that is another one with each value of `key`; `undefined` if it has none. */
  version(key: string): number | undefined {
    return this.#read(() => this.#table.version(key));
  }

  /** The keys that have a value now. */
  keys(): string[] {
    return this.#read(() => this.#table.keys());
  }

  /**
   * What was set or deleted since the last time, or since this reader was made: each key once, with
   * its newest value. Never waits.
   */
  takeChanges(): Change[] {
    return this.#read(() => {
      this.#takeNotice();
      return this.#table.takeChanges();
    });
  }

  /**
   * Resolves `true` when there are changes to take, `false` when the writer has closed and there are
   * none.
   *
   * @throws UkshmError `ERR_UKSHM_PEER_GONE` when it died and there are none, `ERR_UKSHM_CLOSED`,
   * `ERR_UKSHM_BUSY`, `ERR_UKSHM_PEER_MISBEHAVED`; the signal's reason.
   */
  async changed(options?: WaitOptions): Promise<boolean> {
    for (;;) {
      options?.signal?.throwIfAborted();
      const now = this.#read(() => {
        this.#takeNotice();
        return this.#table.hasChanges();
      });
      if (now) return true;
      let more: boolean;
      try {
        more = await this.#channel.readable(options);
      } catch (error) {
        // What a dead writer had set is there all the same.
        if (!(error instanceof UkshmError) || error.code !== 'ERR_UKSHM_PEER_GONE') throw error;
        if (!this.#table.hasChanges()) throw error;
        return true;
      }
      if (!more) return this.#table.hasChanges();
    }
  }

  /** The changes as they come, until the writer closes; throws as `changed`. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Change, void, void> {
    while (await this.changed()) yield* this.takeChanges();
  }

  /** Ends the reading: whatever was read stays ours, nothing more can be. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#held.release();
    await endAtOnce(this.#channel);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keeps the process alive while the writer's table is open (the default). */
  ref(): this {
    this.#channel.ref();
    return this;
  }

  /** Lets the process end while the writer's table is open. */
  unref(): this {
    this.#channel.unref();
    return this;
  }

  #read<T>(action: () => T): T {
    this.#checkOpen();
    try {
      return action();
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError(`the values of '${this.name}'`);
    // Throws when the channel was ended for a lie: then the memory is there no more.
    this.#held.bytes;
  }

  #failed(error: unknown): unknown {
    endIfLie(this.#channel.target, error);
    return error;
  }

  /** The writer sends another notice only behind this one; look at the table after it is taken. */
  #takeNotice(): void {
    try {
      this.#channel.drain(() => {});
    } catch (error) {
      if (!(error instanceof UkshmError) || error.code !== 'ERR_UKSHM_PEER_GONE') throw error;
    }
  }
}

/**
 * Maps the values at `name`.
 *
 * @throws UkshmError as `connect`, and `ERR_UKSHM_NOT_OFFERED`: there are no values of that name.
 */
export async function readValues(name: string, options: JoinOptions = {}): Promise<ValueReader> {
  const { channel, answer } = await join(name, { values: name }, options);
  try {
    return new ValueReader(channel, answer, TableReader.over(answer.bytes));
  } catch (error) {
    endIfLie(channel.target, error);
    await endAtOnce(channel);
    throw error;
  }
}
