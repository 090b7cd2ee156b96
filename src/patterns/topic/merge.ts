// Several subscriptions read as one, in turn: none waits behind another that has much to say.
import { Turns } from '../../channel/turns.js';
import type { TopicMessage } from './message.js';
import type { Subscription } from './subscription.js';

type Result = IteratorResult<TopicMessage>;

export class MergedTopics implements AsyncIterator<TopicMessage> {
  /** Those that had something the last time they were asked; and those that are awaited. */
  readonly #ready: Subscription[];
  readonly #awaited: Set<Subscription> = new Set();
  readonly #sources: readonly Subscription[];
  readonly #turns: Turns = new Turns();
  readonly #stop: AbortController = new AbortController();
  #state: 'new' | 'open' | 'done' = 'new';
  #failed = false;
  #error: unknown = undefined;
  #wake: () => void = () => {};

  constructor(sources: readonly Subscription[]) {
    this.#sources = sources;
    this.#ready = [...sources];
  }

  next(): Promise<Result> {
    try {
      if (this.#state === 'done') return this.#done();
      if (this.#state === 'new') this.#open();
      if (this.#failed) throw this.#error;
      const message = this.#turns.over() ? undefined : this.#take();
      if (message !== undefined) return Promise.resolve({ done: false, value: message });
    } catch (error) {
      this.#finish();
      return Promise.reject(error);
    }
    return this.#wait();
  }

  /** `break` in a loop: the subscriptions stay open. */
  return(): Promise<Result> {
    return this.#done();
  }

  #open(): void {
    const claimed: Subscription[] = [];
    try {
      for (const source of this.#sources) {
        source.claim();
        claimed.push(source);
      }
    } catch (error) {
      for (const source of claimed) source.unclaim();
      this.#state = 'done';
      throw error;
    }
    this.#state = 'open';
  }

  /** The next of the first that has one; who has none is awaited. */
  #take(): TopicMessage | undefined {
    for (let first = this.#ready[0]; first !== undefined; first = this.#ready[0]) {
      const message = first.takeNext();
      this.#ready.shift();
      if (message === undefined) {
        this.#await(first);
        continue;
      }
      this.#ready.push(first);
      return message;
    }
    return undefined;
  }

  #await(source: Subscription): void {
    this.#awaited.add(source);
    source.awaitMore({ signal: this.#stop.signal }).then(
      (more) => {
        this.#awaited.delete(source);
        if (more) this.#ready.push(source);
        this.#wake();
      },
      (error) => {
        this.#awaited.delete(source);
        this.#failed = true;
        this.#error = error;
        this.#wake();
      },
    );
  }

  async #wait(): Promise<Result> {
    try {
      for (;;) {
        if (this.#turns.over()) await this.#turns.next();
        if (this.#failed) throw this.#error;
        const message = this.#take();
        if (message !== undefined) return { done: false, value: message };
        if (this.#awaited.size === 0 && this.#ready.length === 0) return await this.#done();
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (this.#ready.length > 0 || this.#failed || this.#awaited.size === 0) resolve();
        });
        this.#turns.restart();
      }
    } catch (error) {
      this.#finish();
      throw error;
    }
  }

  #done(): Promise<Result> {
    this.#finish();
    return Promise.resolve({ done: true, value: undefined });
  }

  #finish(): void {
    const open = this.#state === 'open';
    this.#state = 'done';
    if (!open) return;
    this.#stop.abort();
    for (const source of this.#sources) source.unclaim();
  }
}

/**
 * Reads several subscriptions as one: a message of each that has some, in turn; `message.topic` tells
 * whose it is. Ends when all have ended; throws as the first of them throws, and loses nothing of the
 * others: they can be read on.
 */
export function merge(...subscriptions: Subscription[]): AsyncIterable<TopicMessage> {
  return { [Symbol.asyncIterator]: () => new MergedTopics(subscriptions) };
}
