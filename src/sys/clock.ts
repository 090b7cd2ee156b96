// Time, turns of the event loop and the number of processors: what a scheduler of tests replaces.
import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';

/** Milliseconds on a clock that never goes back; fractions count. */
export function nowMs(): number {
  return performance.now();
}

/** Calls back once after `delayMs`; the answer cancels it. Keeps nothing alive. */
export function after(delayMs: number, callback: () => void): () => void {
  const timer = setTimeout(callback, delayMs);
  timer.unref();
  return () => clearTimeout(timer);
}

/** As `after`, but the process stays for it. */
export function afterAlive(delayMs: number, callback: () => void): () => void {
  const timer = setTimeout(callback, delayMs);
  return () => clearTimeout(timer);
}

/** Calls back in the next turn of the event loop, after I/O has had its chance. */
export function nextTurn(callback: () => void): void {
  setImmediate(callback);
}

/** Processors that this process may run on. */
export function processorCount(): number {
  return availableParallelism();
}

/** Random bytes that nobody can guess. */
export function random(lengthBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(lengthBytes));
}

/** Tells the program something that is not an error, by Node's own warnings. */
export function warn(message: string, code: string): void {
  process.emitWarning(message, { type: 'UkshmWarning', code });
}
