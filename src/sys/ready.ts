// Waits until something can be done with a descriptor, until a deadline.
import { UkshmError } from '../core/errors.js';
import { afterAlive } from './clock.js';
import { poller } from './poller.js';

/** What a wait is called in its errors, and until when it may last. */
export interface Deadline {
  readonly what: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Runs `attempt` whenever the socket is ready, until it answers other than `undefined`. */
export function whenReady<T>(
  fd: number,
  events: number,
  deadline: Deadline,
  attempt: () => T | undefined,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const { signal, what, timeoutMs } = deadline;
    let over = false;
    const finish = (): void => {
      over = true;
      poller().unwatch(fd);
      cancel();
      signal?.removeEventListener('abort', aborted);
    };
    const step = (): void => {
      if (over) return;
      try {
        const result = attempt();
        if (result === undefined) return;
        finish();
        resolve(result);
      } catch (error) {
        finish();
        reject(error);
      }
    };
    const aborted = (): void => {
      finish();
      reject(signal?.reason);
    };
    const cancel = afterAlive(timeoutMs, () => {
      finish();
      const text = `${what}: no answer within ${timeoutMs} ms; the other side is busy or stopped`;
      reject(new UkshmError('ERR_UKSHM_TIMEOUT', text));
    });
    if (signal?.aborted) {
      over = true;
      cancel();
      reject(signal.reason);
      return;
    }
    signal?.addEventListener('abort', aborted, { once: true });
    poller().watch(fd, events, step);
    step();
  });
}
