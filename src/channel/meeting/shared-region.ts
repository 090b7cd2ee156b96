// A memory of this process that its listener's peers map read-only, each through the listener.
//
// It is laid out and sealed as an outbox whose rings stay unused: whoever can map a region from which
// messages are forwarded can map this one, and what lies in its arena travels as a descriptor.
import type { Mapping } from '../../memory/mapping.js';
import { type OutboxLayout, outboxLayout, RING_BYTES_MIN } from '../../memory/outbox-layout.js';
import { random } from '../../sys/clock.js';
import { closeDescriptor } from '../../sys/memory.js';
import { ownUid } from '../../sys/process.js';
import { Origin } from '../forward.js';
import { TOKEN_BYTES, tokenKey } from '../frames.js';
import type { Listener } from './listener.js';
import { createOutbox, mapOwn } from './outbox.js';

export class SharedRegion {
  readonly mapping: Mapping;
  readonly layout: OutboxLayout;
  /** Where the peers import it. */
  readonly origin: Origin;
  readonly #fd: number;
  readonly #listener: Listener;
  #closed = false;

  private constructor(listener: Listener, fd: number, mapping: Mapping, layout: OutboxLayout) {
    this.#listener = listener;
    this.#fd = fd;
    this.mapping = mapping;
    this.layout = layout;
    const token = random(TOKEN_BYTES);
    this.origin = new Origin(listener.addressBytes, ownUid(), token);
    listener.exports.set(tokenKey(token), { fd, layout, hugePages: false });
  }

  /**
   * Makes one of `arenaBytes`, a multiple of 64 KiB, for the peers of `listener`. Its pages are
   * allocated off the main thread.
   * @throws SyscallError `ERR_UKSHM_NO_MEMORY`.
   */
  static async create(listener: Listener, arenaBytes: number): Promise<SharedRegion> {
    const layout = outboxLayout(RING_BYTES_MIN, arenaBytes);
    const fd = await createOutbox(listener.name, layout, false);
    try {
      const mapping = await mapOwn(fd, layout, false, listener.name);
      return new SharedRegion(listener, fd, mapping, layout);
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
  }

  /** Frees this side's mapping; who has mapped it keeps it as it is. Nobody can map it any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.exports.delete(tokenKey(this.origin.token));
    closeDescriptor(this.#fd);
    this.mapping.close();
  }
}
