// AbortController and AbortSignal whose listeners may have steps: each is a job of the party.
import { current } from './current.js';

type Listener = (event: { readonly target: SteppedSignal }) => unknown;

class SteppedSignal {
  aborted = false;
  reason: unknown = undefined;
  readonly #listeners: Set<Listener> = new Set();

  static abort(reason?: unknown): SteppedSignal {
    const controller = new SteppedController();
    controller.abort(reason);
    return controller.signal;
  }

  addEventListener(_: string, listener: Listener): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_: string, listener: Listener): void {
    this.#listeners.delete(listener);
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  /** @internal For its controller. */
  fire(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    for (const listener of this.#listeners)
      current.party.jobs.push(() => listener({ target: this }));
    this.#listeners.clear();
  }
}

class SteppedController {
  readonly signal: SteppedSignal = new SteppedSignal();
  abort(reason: unknown = new DOMException('This operation was aborted', 'AbortError')): void {
    this.signal.fire(reason);
  }
}

export { SteppedController as AbortController, SteppedSignal as AbortSignal };
