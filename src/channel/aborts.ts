// Listens to abort signals: one listener a signal, however many wait with it. Node warns of more
// than ten, and a program may well give one signal to a thousand requests.

export class Aborts {
  readonly #callbacks: Map<AbortSignal, Set<(reason: unknown) => void>> = new Map();

  /** Calls back once when the signal aborts. @returns what ends the wait. */
  on(signal: AbortSignal | undefined, callback: (reason: unknown) => void): () => void {
    if (signal === undefined) return () => {};
    const known = this.#callbacks.get(signal);
    const callbacks = known ?? new Set();
    if (known === undefined) {
      this.#callbacks.set(signal, callbacks);
      signal.addEventListener('abort', this.#onAbort, { once: true });
    }
    callbacks.add(callback);
    return () => {
      callbacks.delete(callback);
      if (callbacks.size > 0 || this.#callbacks.get(signal) !== callbacks) return;
      this.#callbacks.delete(signal);
      signal.removeEventListener('abort', this.#onAbort);
    };
  }

  readonly #onAbort = (event: Event): void => {
    const signal = event.target as AbortSignal;
    const callbacks = this.#callbacks.get(signal);
    this.#callbacks.delete(signal);
    for (const callback of callbacks ?? []) callback(signal.reason);
  };
}
