// Copies large parts of messages into shared memory, before Node sends what refers to them.
//
//     0             4             8        16
//     | lengthBytes | offsetBytes | zero   | bytes of the part …
//       u32           u32
//
// A part is one or more pieces (records of type PIECE), in order; each names the part's whole
// length and where it belongs. DROP: the part will not be referred to. The record's id is the part's
// number. The bytes stand 16 behind a multiple of 64, as those of a Buffer usually do: copies
// between places that differ modulo 32 take up to twice as long.
//
// Nothing here waits for long: what finds no room goes through Node's pipe.
import type { Channel } from '../../channel/channel.js';
import { UkshmError } from '../../core/errors.js';
import { nowMs, processorCount } from '../../sys/clock.js';

export const TYPE_PIECE = 1;
export const TYPE_DROP = 2;
export const PIECE_HEADER_BYTES = 16;

/** So much is copied in while the other side copies the piece before it out. */
const PIECE_BYTES = 262144;
const NOTHING: Uint8Array = new Uint8Array(0);
/** How long a whole part waits for room: no longer than Node takes to serialise and write it. */
const PATIENCE_MS_MIN = 0.2;
const PATIENCE_BYTES_PER_MS = 1e6;

export class PartSender {
  readonly key: Uint8Array;
  /** Parts up to this find room together, once the other side has read what was before. */
  readonly capacityBytes: number;
  readonly #channel: Channel;
  /** Called again and again while the arena is full: the other side may be waiting for us. */
  readonly #whileFull: () => void;
  /** With one processor nobody makes room while this side waits. */
  readonly #mayWait: boolean = processorCount() > 1;
  #stalled = false;
  /** What is left of the patience for this part. */
  #patienceMs = 0;
  #part = 0;
  /** Parts to be dropped, of which the other side could not be told yet. */
  #undropped: number[] = [];
  #ended = false;

  constructor(channel: Channel, key: Uint8Array, capacityBytes: number, whileFull: () => void) {
    this.#channel = channel;
    this.key = key;
    this.capacityBytes = capacityBytes;
    this.#whileFull = whileFull;
  }

  /** Whether the last part found no room in the end. */
  get stalled(): boolean {
    return this.#stalled;
  }

  /** The number of the part that was sent last. */
  get part(): number {
    return this.#part;
  }

  /**
   * Copies a part. Blocks for as long as the copy takes, and a few milliseconds where the other
   * side does not make room.
   *
   * @returns how many of its first bytes went; the others have found no room.
   */
  put(bytes: Uint8Array): number {
    const { length } = bytes;
    for (const part of this.#undropped.splice(0)) this.#drop(part);
    this.#part = (this.#part + 1) >>> 0;
    // The other side wakes up, and finds memory for the part, while the first piece is copied in.
    // (Behind one that found no room it would begin in vain.)
    if (!this.#stalled && !this.#trySend(NOTHING, 0, length)) return 0;
    this.#patienceMs = PATIENCE_MS_MIN + length / PATIENCE_BYTES_PER_MS;
    let sent = 0;
    while (sent < length) {
      const piece = bytes.subarray(sent, sent + PIECE_BYTES);
      this.#stalled = !this.#sendWhenFree(piece, sent, length);
      if (this.#stalled) break;
      sent += piece.length;
    }
    if (sent === 0) this.#drop(this.#part);
    return sent;
  }

  /** As `put`, all or nothing. */
  putWhole(bytes: Uint8Array): boolean {
    if (this.put(bytes) === bytes.length) return true;
    this.#drop(this.#part);
    return false;
  }

  /** The parts behind `part` will not be referred to. */
  dropBehind(part: number): void {
    for (let i = part; i !== this.#part; ) {
      i = (i + 1) >>> 0;
      this.#drop(i);
    }
  }

  /** Sends nothing more; what was sent stays readable for the other side. */
  close(): void {
    this.#ended = true;
    void this.#channel.close({ signal: AbortSignal.abort() }).catch(() => {});
  }

  #trySend(piece: Uint8Array, offsetBytes: number, lengthBytes: number): boolean {
    return this.#orEnd(() => {
      const options = { type: TYPE_PIECE, id: this.#part };
      const loan = this.#channel.tryLoan(PIECE_HEADER_BYTES + piece.length, options);
      if (loan === undefined) return false;
      const target = loan.bytes;
      const header = new Uint32Array(target.buffer, target.byteOffset, PIECE_HEADER_BYTES / 4);
      header[0] = lengthBytes;
      header[1] = offsetBytes;
      header[2] = 0;
      header[3] = 0;
      target.set(piece, PIECE_HEADER_BYTES);
      loan.send();
      return true;
    });
  }

  #sendWhenFree(piece: Uint8Array, offsetBytes: number, lengthBytes: number): boolean {
    if (this.#trySend(piece, offsetBytes, lengthBytes)) return true;
    // The last wait was in vain: none more before there is room again.
    if (!this.#mayWait || this.#stalled) return false;
    const start = nowMs();
    const deadline = start + this.#patienceMs;
    let sent = false;
    while (!sent && !this.#ended && nowMs() < deadline) {
      this.#whileFull();
      sent = this.#trySend(piece, offsetBytes, lengthBytes);
    }
    this.#patienceMs -= nowMs() - start;
    return sent;
  }

  #drop(part: number): void {
    const options = { type: TYPE_DROP, id: part };
    const told = this.#orEnd(() => this.#channel.trySend(NOTHING, options));
    if (!told && !this.#ended) this.#undropped.push(part);
  }

  /** @returns `false` also when the channel has ended: then all goes Node's own way. */
  #orEnd(action: () => boolean): boolean {
    try {
      return !this.#ended && action();
    } catch (error) {
      if (!(error instanceof UkshmError)) throw error;
      this.#ended = true;
      return false;
    }
  }
}
