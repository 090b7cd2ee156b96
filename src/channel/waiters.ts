// Those who wait for something of the peer's, in order: each is an attempt that is made again
// whenever there may be news, until it answers other than `undefined`.
import { Aborts } from './aborts.js';

interface Waiter {
  readonly attempt: () => boolean;
  readonly fail: (error: unknown) => void;
}

export class Waiters {
  readonly #queue: Waiter[] = [];
  readonly #aborts: Aborts = new Aborts();

  get count(): number {
    return this.#queue.length;
  }

  /**
   * Waits until `attempt` answers other than `undefined`; earlier waiters come first.
   * @throws what `attempt` throws, what `failAll` is given, or the signal's reason.
   */
  wait<T>(attempt: () => T | undefined, signal: AbortSignal | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const stopListening = this.#aborts.on(signal, (reason) => {
        const index = this.#queue.indexOf(waiter);
        if (index >= 0) this.#queue.splice(index, 1);
        reject(reason);
        // Those behind may need less than what it waited for, and nobody may ring again.
        if (index === 0) this.serve();
      });
      const waiter: Waiter = {
        attempt: () => {
          const result = attempt();
          if (result === undefined) return false;
          stopListening();
          resolve(result);
          return true;
        },
        fail: (error) => {
          stopListening();
          reject(error);
        },
      };
      this.#queue.push(waiter);
    });
  }

  /** Makes attempts in order until one is still without result. @returns whether any succeeded. */
  serve(): boolean {
    let served = false;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      let done: boolean;
      try {
        done = first.attempt();
      } catch (error) {
        first.fail(error);
        done = true;
      }
      if (!done) break;
      served = true;
      // An attempt may have aborted others, never itself.
      const index = this.#queue.indexOf(first);
      if (index >= 0) this.#queue.splice(index, 1);
    }
    return served;
  }

  failAll(error: unknown): void {
    for (const waiter of this.#queue.splice(0)) waiter.fail(error);
  }
}

/** As `promise`, unless the signal comes first: then its reason. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const aborted = (): void => reject(signal.reason);
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}
