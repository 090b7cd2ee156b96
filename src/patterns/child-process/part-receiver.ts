// Copies large parts of messages out of shared memory, into memory that the program may keep.
import type { Channel } from '../../channel/channel.js';
import type { MessageCursor } from '../../channel/message.js';
import { peerMisbehaved, UkshmError } from '../../core/errors.js';
import type { Marker } from './marker.js';
import { PIECE_HEADER_BYTES, TYPE_DROP, TYPE_PIECE } from './part-sender.js';

/** Beyond this, parts that no message has asked for yet stay in shared memory. */
const UNCLAIMED_BYTES_MAX = 268435456;
/** What Node's own pipe can carry in one message. */
const PART_BYTES_MAX = 2147483647;
/** Why a channel has nothing more. */
const ENDED: readonly string[] = [
  'ERR_UKSHM_CLOSED',
  'ERR_UKSHM_PEER_CLOSED',
  'ERR_UKSHM_PEER_GONE',
];
/** Parts that lack bytes: a sender that found no room leaves one, and its marker follows. */
const INCOMPLETE_PARTS_MAX = 64;
/** How long the next piece of a part is looked for before this side sleeps. */
const SPIN_MICROS = 100;

interface Part {
  readonly bytes: Uint8Array;
  filledBytes: number;
}

export class PartReceiver {
  readonly key: Uint8Array;
  /** As the sender's. */
  readonly capacityBytes: number;
  readonly #channel: Channel;
  readonly #allocate: (lengthBytes: number) => Uint8Array;
  readonly #parts: Map<number, Part> = new Map();
  #unclaimedBytes = 0;
  /** The part that is being copied in now, as far as known here. */
  #incomplete: Part | undefined = undefined;
  readonly #closed: AbortController = new AbortController();
  #onClaim: () => void = () => {};
  /** What the sender was caught at, while nobody asked for a part. */
  #lie: UkshmError | undefined = undefined;
  #ended = false;

  /** @param allocate - memory of its own for a part. */
  constructor(
    channel: Channel,
    key: Uint8Array,
    capacityBytes: number,
    allocate: (lengthBytes: number) => Uint8Array,
  ) {
    this.#channel = channel;
    this.key = key;
    this.capacityBytes = capacityBytes;
    this.#allocate = allocate;
    void this.#run();
  }

  /** Whether nothing more will come. */
  get finished(): boolean {
    return this.#ended && this.#parts.size === 0;
  }

  /** Copies out what is there now. @returns whether there are parts that nobody has asked for. */
  collect(): boolean {
    while (this.#unclaimedBytes < UNCLAIMED_BYTES_MAX && this.#step()) {}
    return this.#parts.size > 0;
  }

  /**
   * The part that a marker stands for; its message comes behind it, so it is there.
   * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_NO_MEMORY`.
   */
  take(marker: Omit<Marker, 'kind'>): Uint8Array {
    const { lengthBytes, sharedBytes, rest } = marker;
    if (this.#lie !== undefined) throw this.#lie;
    while (!this.#isThere(marker) && this.#step()) {}
    const part = this.#parts.get(marker.part);
    if (part?.filledBytes !== sharedBytes || part.bytes.length !== lengthBytes) {
      const there = part === undefined ? 'no such part' : `${part.filledBytes} of its bytes`;
      throw peerMisbehaved(`a marker for part ${marker.part}, and there are ${there}`);
    }
    this.#forget(marker.part);
    part.bytes.set(rest, sharedBytes);
    return part.bytes;
  }

  close(): void {
    this.#parts.clear();
    this.#closed.abort();
    this.#onClaim();
    void this.#channel.close({ signal: AbortSignal.abort() }).catch(() => {});
  }

  #isThere(marker: Omit<Marker, 'kind'>): boolean {
    const part = this.#parts.get(marker.part);
    return part !== undefined && part.filledBytes >= marker.sharedBytes;
  }

  #forget(number: number): void {
    const part = this.#parts.get(number);
    if (part === undefined) return;
    this.#unclaimedBytes -= part.bytes.length;
    this.#parts.delete(number);
    this.#onClaim();
    if (part !== this.#incomplete) return;
    this.#incomplete = undefined;
  }

  /** Copies out whatever comes, until the channel ends. */
  async #run(): Promise<void> {
    try {
      while (await this.#channel.readable({ signal: this.#closed.signal })) {
        this.collect();
        // The next piece is being copied in: to sleep and be woken would take longer.
        while (this.#incomplete !== undefined && this.#channel.spin(SPIN_MICROS)) this.collect();
        if (this.#unclaimedBytes >= UNCLAIMED_BYTES_MAX) await this.#claimed();
      }
    } catch (error) {
      if (error instanceof UkshmError && !ENDED.includes(error.code)) this.#lie = error;
    }
    this.#ended = true;
  }

  /** Resolves when a message has asked for a part. */
  #claimed(): Promise<void> {
    return new Promise((resolve) => {
      this.#onClaim = resolve;
    });
  }

  /** @returns `false` when nothing is there, or nothing will ever be. */
  #step(): boolean {
    try {
      return this.#channel.drain(this.#onRecord, 1) > 0;
    } catch (error) {
      if (error instanceof UkshmError && ENDED.includes(error.code)) return false;
      throw error;
    }
  }

  readonly #onRecord = (record: MessageCursor): void => {
    const { id, type, lengthBytes } = record;
    if (type === TYPE_DROP) this.#forget(id);
    else if (type === TYPE_PIECE && lengthBytes >= PIECE_HEADER_BYTES) this.#onPiece(id, record);
    else throw peerMisbehaved(`a record of type ${type} and ${lengthBytes} bytes`);
  };

  #onPiece(number: number, record: MessageCursor): void {
    const { bytes } = record;
    const header = new DataView(bytes.buffer, bytes.byteOffset, PIECE_HEADER_BYTES);
    const lengthBytes = header.getUint32(0, true);
    const offsetBytes = header.getUint32(4, true);
    const pieceBytes = bytes.length - PIECE_HEADER_BYTES;
    const part = this.#parts.get(number) ?? this.#begin(number, lengthBytes);
    if (part.filledBytes !== offsetBytes || offsetBytes + pieceBytes > part.bytes.length) {
      throw peerMisbehaved(`a piece of ${pieceBytes} bytes at ${offsetBytes} of part ${number}`);
    }
    part.bytes.set(bytes.subarray(PIECE_HEADER_BYTES), offsetBytes);
    part.filledBytes += pieceBytes;
    if (part.filledBytes === part.bytes.length) this.#incomplete = undefined;
  }

  #begin(number: number, lengthBytes: number): Part {
    if (lengthBytes === 0 || lengthBytes > PART_BYTES_MAX) {
      throw peerMisbehaved(`part ${number} of ${lengthBytes} bytes`);
    }
    if (this.#parts.size >= INCOMPLETE_PARTS_MAX) this.#checkIncomplete();
    const part = { bytes: this.#find(lengthBytes), filledBytes: 0 };
    this.#parts.set(number, part);
    this.#unclaimedBytes += lengthBytes;
    this.#incomplete = part;
    return part;
  }

  #checkIncomplete(): void {
    let count = 0;
    for (const { bytes, filledBytes } of this.#parts.values()) {
      if (filledBytes < bytes.length) count++;
    }
    if (count >= INCOMPLETE_PARTS_MAX)
      throw peerMisbehaved(`${count} parts that it did not finish`);
  }

  #find(lengthBytes: number): Uint8Array {
    try {
      return this.#allocate(lengthBytes);
    } catch (cause) {
      const text = `no memory for a part of ${lengthBytes} bytes of a received message`;
      throw new UkshmError('ERR_UKSHM_NO_MEMORY', text, { cause });
    }
  }
}
