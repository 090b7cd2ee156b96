// A topic: what its publisher holds of it. Subscribers are admitted (roster.ts), small messages are
// copied into each one's ring, larger ones written once into memory that all of them map.
import { endSettings } from '../../channel/meeting/meeting.js';
import type { WaitOptions } from '../../channel/options.js';
import { Spinner } from '../../channel/spinner.js';
import { Turns } from '../../channel/turns.js';
import { Waiters } from '../../channel/waiters.js';
import { checkInteger } from '../../core/check.js';
import { closedError, UkshmError } from '../../core/errors.js';
import { nowMs } from '../../sys/clock.js';
import { OpenLoan, type TopicLoan } from './loan.js';
import { type TopicOptions, topicSettings } from './options.js';
import { type Parcel, Queue } from './queue.js';
import type { TopicChunk } from './region.js';
import { Roster, type SubscriberStats } from './roster.js';

const NO_BYTES = new Uint8Array(0);
/** A message takes at most this part of the shared memory. */
const MESSAGE_SHARE = 0.25;
/** So do all that are kept. */
const KEPT_SHARE = 0.25;

/** How a topic's memory is used now. */
export interface TopicStats {
  /** Bytes of the memory that the subscribers share, and of those that are free. */
  readonly sharedBytes: number;
  readonly freeBytes: number;
  /** Publishes and loans that wait. */
  readonly waiting: number;
  /** Messages that late subscribers would get. */
  readonly kept: number;
}

/** A name at which one publishes and others subscribe. Made by `openTopic`. */
export class Topic {
  readonly name: string;
  /** The longest message. */
  readonly messageBytesMax: number;
  readonly #roster: Roster;
  readonly #inlineBytesMax: number;
  readonly #kept: Queue | undefined;
  readonly #keptBytesMax: number;
  readonly #waiters: Waiters = new Waiters();
  readonly #turns: Turns = new Turns();
  readonly #spinner: Spinner;
  #sequence: number;
  #serving = false;
  #servesAgain = false;
  #closed = false;
  #closing: Promise<void> | undefined = undefined;

  private constructor(roster: Roster, options: TopicOptions) {
    const { keep, firstSequence } = topicSettings(options);
    const arenaBytes = roster.regions.current.shared.layout.arenaBytes;
    this.name = roster.name;
    this.#roster = roster;
    this.#inlineBytesMax = roster.inlineBytesMax;
    this.messageBytesMax = Math.max(this.#inlineBytesMax, Math.floor(arenaBytes * MESSAGE_SHARE));
    this.#kept = keep > 0 ? new Queue(keep) : undefined;
    this.#keptBytesMax = arenaBytes * KEPT_SHARE;
    this.#spinner = new Spinner(endSettings(options).spinMicros);
    this.#sequence = firstSequence;
    roster.start({
      sequence: () => this.#sequence,
      kept: () => this.#kept,
      serve: () => this.#serve(),
    });
  }

  /** @internal For `openTopic`. */
  static async open(name: string, options: TopicOptions): Promise<Topic> {
    options.signal?.throwIfAborted();
    const topic = new Topic(await Roster.open(name, options), options);
    options.signal?.addEventListener('abort', () => void topic.close(), { once: true });
    if (!options.signal?.aborted) return topic;
    await topic.close();
    throw options.signal.reason;
  }

  /** The number of the next message: a u32, which wraps to 0. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Who is subscribed now. */
  get subscribers(): readonly SubscriberStats[] {
    return this.#roster.stats();
  }

  /** How the memory is used now. */
  stats(): TopicStats {
    const { sharedBytes, freeBytes } = this.#roster.regions.sizes;
    return { sharedBytes, freeBytes, waiting: this.#waiters.count, kept: this.#kept?.count ?? 0 };
  }

  /**
   * Sends a message to all subscribers. `bytes` are copied before this returns, unless it waits:
   * while the shared memory is exhausted, or while one that may block the topic does.
   *
   * @throws UkshmError `ERR_UKSHM_MESSAGE_TOO_LONG`, `ERR_UKSHM_CLOSED`; the signal's reason.
   */
  async publish(bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    await this.#when(() => this.#publish(bytes) || undefined, options?.signal);
  }

  /** As `publish`, but `false` where that would wait: nobody is sent anything then. Never blocks. */
  tryPublish(bytes: Uint8Array): boolean {
    return this.#waiters.count === 0 && this.#publish(bytes);
  }

  /**
   * Memory for a message of `lengthBytes`, to be written in place; waits while it is exhausted.
   * @throws as `publish`.
   */
  loan(lengthBytes: number, options?: WaitOptions): Promise<TopicLoan> {
    return this.#when(() => this.#loan(lengthBytes), options?.signal);
  }

  /** As `loan`, but `undefined` where that would wait. */
  tryLoan(lengthBytes: number): TopicLoan | undefined {
    return this.#waiters.count === 0 ? this.#loan(lengthBytes) : undefined;
  }

  /**
   * Ends the topic: what waits to be published fails, subscribers get what waits for them and have a
   * second to read and release it; then the memory is freed. Idempotent.
   *
   * @throws the signal's reason when that comes first; the topic is then ended at once.
   */
  close(options?: WaitOptions): Promise<void> {
    this.#closing ??= this.#close(options?.signal);
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keeps the process alive while the topic is open (the default). */
  ref(): this {
    this.#roster.ref();
    return this;
  }

  /** Lets the process end while the topic is open. */
  unref(): this {
    this.#roster.unref();
    return this;
  }

  /** @internal For its loans. */
  tryPublishLoan(loan: OpenLoan, lengthBytes: number): boolean {
    return this.#waiters.count === 0 && this.#publishLoan(loan, lengthBytes);
  }

  /** @internal For its loans. */
  async publishLoan(
    loan: OpenLoan,
    lengthBytes: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    await this.#when(() => this.#publishLoan(loan, lengthBytes) || undefined, signal);
  }

  /** @internal For its loans: others may have the space. */
  onDiscard(): void {
    this.#serve();
  }

  #publish(bytes: Uint8Array): boolean {
    const lengthBytes = bytes.length;
    this.#check(lengthBytes);
    if (lengthBytes <= this.#inlineBytesMax) {
      return this.#roster.canTake(lengthBytes, undefined) && this.#sendSmall(bytes);
    }
    const chunk = this.#roster.regions.tryChunk(lengthBytes);
    if (chunk === undefined) return false;
    const free = this.#roster.canTake(lengthBytes, chunk);
    if (free) {
      chunk.region.write(chunk, bytes);
      this.#sendChunk(chunk);
    }
    chunk.drop();
    return free;
  }

  #loan(lengthBytes: number): TopicLoan | undefined {
    this.#check(lengthBytes);
    if (lengthBytes <= this.#inlineBytesMax) {
      return new OpenLoan(this, new Uint8Array(lengthBytes), undefined);
    }
    const chunk = this.#roster.regions.tryChunk(lengthBytes);
    return chunk && new OpenLoan(this, chunk.region.view(chunk), chunk);
  }

  #publishLoan(loan: OpenLoan, lengthBytes: number): boolean {
    this.#check(lengthBytes);
    const { bytes, chunk } = loan;
    if (chunk === undefined) {
      return (
        this.#roster.canTake(lengthBytes, undefined) &&
        this.#sendSmall(bytes.subarray(0, lengthBytes))
      );
    }
    if (chunk.region !== this.#roster.regions.current) {
      // The memory was renewed meanwhile, and not everybody has the old one.
      if (!this.#publish(bytes.subarray(0, lengthBytes))) return false;
    } else {
      chunk.lengthBytes = lengthBytes;
      if (!this.#roster.canTake(lengthBytes, chunk)) return false;
      this.#sendChunk(chunk);
    }
    chunk.drop();
    return true;
  }

  #sendSmall(bytes: Uint8Array): true {
    const sequence = this.#nextSequence();
    let parcel: Parcel | undefined;
    if (this.#kept !== undefined) {
      parcel = { sequence, bytes: new Uint8Array(bytes), chunk: undefined };
      this.#kept.push(parcel, this.#keptBytesMax);
    }
    const { outlets } = this.#roster;
    for (let i = 0; i < outlets.length; i++) {
      const outlet = outlets[i];
      if (outlet === undefined || outlet.send(bytes, sequence)) continue;
      parcel ??= { sequence, bytes: new Uint8Array(bytes), chunk: undefined };
      this.#roster.late(outlet, parcel);
    }
    this.#roster.onPublished();
    return true;
  }

  /** The caller has a hold on the chunk, and keeps it. */
  #sendChunk(chunk: TopicChunk): void {
    const sequence = this.#nextSequence();
    let parcel: Parcel | undefined;
    if (this.#kept !== undefined) {
      parcel = { sequence, bytes: NO_BYTES, chunk };
      this.#kept.push(parcel, this.#keptBytesMax);
    }
    const { outlets } = this.#roster;
    for (let i = 0; i < outlets.length; i++) {
      const outlet = outlets[i];
      if (outlet === undefined || outlet.lend(chunk, sequence)) continue;
      parcel ??= { sequence, bytes: NO_BYTES, chunk };
      this.#roster.late(outlet, parcel);
    }
    this.#roster.onPublished();
  }

  #nextSequence(): number {
    const sequence = this.#sequence;
    this.#sequence = (sequence + 1) >>> 0;
    return sequence;
  }

  #check(lengthBytes: number): void {
    if (this.#closed) throw closedError(`the topic '${this.name}'`);
    if (lengthBytes >>> 0 === lengthBytes && lengthBytes <= this.messageBytesMax) return;
    if (!Number.isInteger(lengthBytes) || lengthBytes < 0) {
      checkInteger('lengthBytes', lengthBytes, 0, this.messageBytesMax);
    }
    throw new UkshmError(
      'ERR_UKSHM_MESSAGE_TOO_LONG',
      `a message of ${lengthBytes} bytes; the topic '${this.name}' takes up to ` +
        `${this.messageBytesMax}, a quarter of 'arenaBytes': ask for more in openTopic()`,
    );
  }

  /** Makes the attempt now, after a short look, and then whenever something has come back. */
  async #when<T>(attempt: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    signal?.throwIfAborted();
    if (this.#waiters.count === 0) {
      const now = attempt() ?? this.#spin(attempt);
      if (now !== undefined) {
        if (this.#turns.over()) await this.#turns.next();
        return now;
      }
    }
    this.#roster.ringSleepers();
    const result = this.#waiters.wait(attempt, signal);
    this.#serve();
    return result.finally(() => this.#turns.restart());
  }

  #spin<T>(attempt: () => T | undefined): T | undefined {
    const budget = this.#spinner.budget();
    if (budget === 0) return undefined;
    const deadline = nowMs() + budget / 1000;
    let result: T | undefined;
    do {
      result = attempt();
    } while (result === undefined && nowMs() < deadline);
    this.#spinner.report(result !== undefined);
    return result;
  }

  /** Something came back: those who wait try again. An attempt of theirs may call this. */
  #serve(): void {
    this.#servesAgain = true;
    if (this.#serving) return;
    this.#serving = true;
    while (this.#servesAgain && this.#waiters.count > 0) {
      this.#servesAgain = false;
      this.#waiters.serve();
      // What was released before is found by this, and served in another round.
      if (this.#waiters.count > 0) this.#roster.watch();
    }
    this.#serving = false;
  }

  async #close(signal: AbortSignal | undefined): Promise<void> {
    this.#closed = true;
    this.#waiters.failAll(closedError(`the topic '${this.name}'`));
    this.#kept?.clear();
    await this.#roster.close(signal);
    signal?.throwIfAborted();
  }
}

/**
 * Takes `name` (as `listen` does) and publishes there. Only this process does.
 *
 * @throws UkshmError `ERR_UKSHM_NAME_IN_USE` and who has it, `ERR_UKSHM_INVALID_ARGUMENT`,
 * `ERR_UKSHM_NO_MEMORY`.
 */
export function openTopic(name: string, options: TopicOptions = {}): Promise<Topic> {
  return Topic.open(name, options);
}
