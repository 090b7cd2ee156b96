// Promises whose callbacks may be generators, and whose jobs belong to the party that waits: within a
// party all is as in Node, one job after the other, each to its end.
import { current } from './current.js';

/** What a coloured function returns when it is called. */
export type Steps<T = unknown> = Generator<unknown, T, unknown>;

const IS_STEPS = Symbol('steps');
const generatorPrototype = Object.getPrototypeOf(
  Object.getPrototypeOf((function* (): Generator {})()),
);
Object.defineProperty(generatorPrototype, IS_STEPS, { value: true });

/** The value, or what its steps end with where it is a coloured function's. */
export function* run(value: unknown): Steps {
  if (isSteps(value)) return yield* value;
  return value;
}

export function isSteps(value: unknown): value is Steps {
  return typeof value === 'object' && value !== null && IS_STEPS in value;
}

type Callback = ((value: unknown) => unknown) | null | undefined;
type Settle = (value?: unknown) => void;

class SteppedPromise {
  #state: 'pending' | 'fulfilled' | 'rejected' = 'pending';
  #value: unknown = undefined;
  #reactions: (() => void)[] = [];
  #handled = false;

  constructor(executor: (resolve: Settle, reject: Settle) => unknown = () => {}) {
    try {
      executor(this.resolve, this.reject);
    } catch (error) {
      this.reject(error);
    }
  }

  static resolve(value?: unknown): SteppedPromise {
    if (value instanceof SteppedPromise) return value;
    const promise = new SteppedPromise();
    promise.resolve(value);
    return promise;
  }

  static reject(reason?: unknown): SteppedPromise {
    const promise = new SteppedPromise();
    promise.reject(reason);
    return promise;
  }

  static all(values: Iterable<unknown>): SteppedPromise {
    const list = [...values];
    const results: unknown[] = [];
    let left = list.length;
    return new SteppedPromise((resolve, reject) => {
      if (left === 0) resolve(results);
      for (const [i, value] of list.entries()) {
        SteppedPromise.resolve(value).then((result) => {
          results[i] = result;
          left--;
          if (left === 0) resolve(results);
        }, reject);
      }
    });
  }

  static race(values: Iterable<unknown>): SteppedPromise {
    return new SteppedPromise((resolve, reject) => {
      for (const value of values) SteppedPromise.resolve(value).then(resolve, reject);
    });
  }

  get settled(): boolean {
    return this.#state !== 'pending';
  }

  /** Why it failed; `undefined` while it has not, or where somebody deals with that. */
  get unhandled(): { readonly reason: unknown } | undefined {
    return this.#state === 'rejected' && !this.#handled ? { reason: this.#value } : undefined;
  }

  readonly resolve: Settle = (value) => {
    if (this.#state !== 'pending') return;
    const then = (value as { then?: unknown } | null | undefined)?.then;
    if (typeof then === 'function') {
      (value as SteppedPromise).then(this.#fulfil, this.reject);
    } else this.#fulfil(value);
  };

  readonly reject: Settle = (reason) => {
    if (this.#state !== 'pending') return;
    current.party.rejections.push(this);
    this.#settle('rejected', reason);
  };

  // biome-ignore lint/suspicious/noThenProperty: it is a promise.
  then(onFulfilled?: Callback, onRejected?: Callback): SteppedPromise {
    const derived = new SteppedPromise();
    this.react((ok, value) => {
      const callback = ok ? onFulfilled : onRejected;
      return settleWith(derived, callback, ok, value);
    });
    return derived;
  }

  catch(onRejected?: Callback): SteppedPromise {
    return this.then(undefined, onRejected);
  }

  finally(callback: () => unknown): SteppedPromise {
    const derived = new SteppedPromise();
    this.react(function* (ok, value): Steps<void> {
      try {
        const result = yield* run(callback());
        SteppedPromise.resolve(result).then(() =>
          ok ? derived.resolve(value) : derived.reject(value),
        );
      } catch (error) {
        derived.reject(error);
      }
    });
    return derived;
  }

  /** Runs `job` in this party once it is settled. */
  react(job: (ok: boolean, value: unknown) => Steps): void {
    this.#handled = true;
    const { jobs } = current.party;
    const reaction = (): void => {
      jobs.push(() => job(this.#state === 'fulfilled', this.#value));
    };
    if (this.settled) reaction();
    else this.#reactions.push(reaction);
  }

  readonly #fulfil = (value: unknown): void => this.#settle('fulfilled', value);

  #settle(state: 'fulfilled' | 'rejected', value: unknown): void {
    if (this.#state !== 'pending') return;
    this.#state = state;
    this.#value = value;
    const reactions = this.#reactions;
    this.#reactions = [];
    for (const reaction of reactions) reaction();
  }
}

export { SteppedPromise as Promise };

function* settleWith(
  derived: SteppedPromise,
  callback: Callback,
  ok: boolean,
  value: unknown,
): Steps<void> {
  try {
    if (typeof callback === 'function') derived.resolve(yield* run(callback(value)));
    else if (ok) derived.resolve(value);
    else derived.reject(value);
  } catch (error) {
    derived.reject(error);
  }
}

/** `new Promise` whose executor may have steps. */
export function* newPromise(executor: (resolve: Settle, reject: Settle) => unknown): Steps {
  const promise = new SteppedPromise();
  try {
    yield* run(executor(promise.resolve, promise.reject));
  } catch (error) {
    promise.reject(error);
  }
  return promise;
}

class Wait {
  readonly promise: SteppedPromise;
  constructor(value: unknown) {
    this.promise = SteppedPromise.resolve(value);
  }
}

class Emitted {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

/** `await`: yielded to `spawn`. */
export function waitFor(value: unknown): unknown {
  return new Wait(value);
}

/** `yield` of an asynchronous generator. */
export function emit(value: unknown): unknown {
  return new Emitted(value);
}

export function* emitAll(values: Iterable<unknown>): Steps<void> {
  for (const value of values) yield new Emitted(value);
}

/** The body of an async function: runs up to its first `await`, and answers its promise. */
export function* spawn(body: Steps): Steps<SteppedPromise> {
  const promise = new SteppedPromise();
  yield* drive(body, promise, true, undefined);
  return promise;
}

function* drive(body: Steps, promise: SteppedPromise, ok: boolean, value: unknown): Steps<void> {
  let resumed = ok;
  let given = value;
  for (;;) {
    let result: IteratorResult<unknown, unknown>;
    try {
      result = resumed ? body.next(given) : body.throw(given);
    } catch (error) {
      promise.reject(error);
      return;
    }
    if (result.done) {
      promise.resolve(result.value);
      return;
    }
    if (result.value instanceof Wait) {
      result.value.promise.react((isOk, answer) => drive(body, promise, isOk, answer));
      return;
    }
    if (result.value instanceof Emitted) {
      promise.resolve({ done: false, value: result.value.value });
      return;
    }
    yield;
    resumed = true;
    given = undefined;
  }
}

/** An asynchronous generator; asked for one value at a time. */
export function asyncGenerator(body: Steps): object {
  const done = { done: true, value: undefined };
  let ended = false;
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    *next(): Steps {
      if (ended) return SteppedPromise.resolve(done);
      const promise = new SteppedPromise();
      yield* drive(body, promise, true, undefined);
      return promise.then((result) => {
        if ((result as { done?: boolean } | undefined)?.done === false) return result;
        ended = true;
        return done;
      });
    },
    return(): SteppedPromise {
      ended = true;
      return SteppedPromise.resolve(done);
    },
  };
}

export function* iteratorOf(iterable: AsyncIterable<unknown>): Steps {
  return yield* run(iterable[Symbol.asyncIterator]());
}
