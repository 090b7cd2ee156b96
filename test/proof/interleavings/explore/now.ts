// Steps where no scheduler is: set-up, verdict, constructors, unit tests.
import { isSteps } from './promise.js';

/** Runs steps to their end at once. @throws Error where one of them has to wait for its turn. */
export function now(value: unknown, place: string = 'here'): unknown {
  if (!isSteps(value)) return value;
  const { done, value: result } = value.next();
  if (done) return result;
  throw new Error(`${place}: a step where the scheduler cannot wait`);
}
