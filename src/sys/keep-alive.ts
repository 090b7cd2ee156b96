// Objects that keep the event loop alive while they are open.
import { poller } from './poller.js';

/** What an open object does for the event loop: `ref()` and `unref()` until its end. */
export class KeepAlive {
  #state: 'new' | 'open' | 'ended' = 'new';
  #refed = true;

  start(): void {
    this.#state = 'open';
    if (this.#refed) poller().ref();
  }

  ref(): void {
    if (!this.#refed && this.#state === 'open') poller().ref();
    this.#refed = true;
  }

  unref(): void {
    if (this.#refed && this.#state === 'open') poller().unref();
    this.#refed = false;
  }

  end(): void {
    if (this.#refed && this.#state === 'open') poller().unref();
    this.#state = 'ended';
  }
}
