// In place of src/sys/poller.ts: each party has its own.
import { current } from '../explore/current.js';
import { Party } from '../explore/party.js';

class PartyPoller {
  readonly #party: Party;
  constructor(party: Party) {
    this.#party = party;
  }
  watch(fd: number, events: number, callback: (events: number) => unknown): void {
    this.#party.watch(fd, events, callback);
  }
  change(fd: number, events: number): void {
    const watch = this.#party.watches.get(fd);
    if (watch !== undefined) watch.events = events;
  }
  unwatch(fd: number): void {
    this.#party.watches.delete(fd);
  }
  defer(callback: () => unknown): void {
    this.#party.deferred.push(callback);
  }
  ref(): void {
    this.#party.refs++;
  }
  unref(): void {
    this.#party.refs--;
  }
}

export function poller(): PartyPoller {
  const { party } = current;
  if (!(party instanceof Party)) throw new Error('a channel outside a party');
  return new PartyPoller(party);
}
