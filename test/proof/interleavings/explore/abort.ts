// AbortController and AbortSignal whose listeners may have steps.
import { run, type Steps } from './promise.js';

type Listener = (event: { readonly target: SteppedSignal }) => unknown;

class SteppedSignal {
  aborted = false;
  reason: unknown = undefined;
  readonly #listeners: Set<Listener> = new Set();

  static abort(reason?: unknown): SteppedSignal {
    const signal = new SteppedSignal();
    signal.aborted = true;
    signal.reason = reason ?? abortError();
    return signal;
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
  *fire(reason: unknown): Steps<void> {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) yield* run(listener({ target: this }));
  }
}

class SteppedController {
  readonly signal: SteppedSignal = new SteppedSignal();
  *abort(reason: unknown = abortError()): Steps<void> {
    yield* this.signal.fire(reason);
  }
}

function abortError(): DOMException {
  return new DOMException('This operation was aborted', 'AbortError');
}

export { SteppedController as AbortController, SteppedSignal as AbortSignal };
