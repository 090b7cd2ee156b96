// A channel as a stream of bytes: Node's `Duplex`, for `pipeline` and what is built on streams.
//
// Each chunk written is one message, large ones several; a message without bytes is the end of that
// direction. Received bytes are copied, because whoever reads a stream may keep them for ever.
import { Duplex } from 'node:stream';
import { UkshmError } from '../core/errors.js';
import type { MessageCursor } from './message.js';
import type { WaitOptions } from './options.js';

/** The most bytes in one message: a few of these fit into a second-level cache. */
const PIECE_BYTES_MAX = 65536;
/** Messages that are read at once: a stream that wants no more keeps at most so many. */
const MESSAGES_PER_READ = 8;
const END = new Uint8Array(0);

/** How a stream over a channel is to be. */
export interface DuplexOptions {
  /** Bytes that may wait in each direction before back-pressure begins. Default 64 KiB. */
  readonly highWaterMark?: number;
}

/** What a stream needs of its channel. */
export interface StreamSource {
  readonly messageBytesMax: number;
  trySend(bytes: Uint8Array): boolean;
  send(bytes: Uint8Array): Promise<void>;
  /** Resolves `false` when the other side has closed. */
  readable(): Promise<boolean>;
  drain(handler: (message: MessageCursor) => void, limit: number): number;
  close(options?: WaitOptions): Promise<void>;
  /** Lets others read the channel again. */
  unclaim(): void;
}

export class ChannelDuplex extends Duplex {
  readonly #source: StreamSource;
  readonly #pieceBytes: number;
  #reading = false;
  #wanted = true;
  #ended = false;

  constructor(source: StreamSource, options: DuplexOptions) {
    super({ highWaterMark: options.highWaterMark ?? PIECE_BYTES_MAX });
    this.#source = source;
    this.#pieceBytes = Math.min(PIECE_BYTES_MAX, source.messageBytesMax);
  }

  override _read(): void {
    this.#wanted = true;
    if (this.#reading || this.#ended) return;
    this.#reading = true;
    void this.#pull();
  }

  override _write(
    chunk: Uint8Array,
    _encoding: BufferEncoding,
    callback: (error?: Error | null) => void,
  ): void {
    try {
      // Nothing to send, and a message without bytes would be the end.
      const sent = chunk.length === 0;
      if (sent || (chunk.length <= this.#pieceBytes && this.#source.trySend(chunk))) callback();
      else this.#send(chunk).then(() => callback(), callback);
    } catch (error) {
      callback(error as Error);
    }
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#source.send(END).then(() => callback(), callback);
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#ended = true;
    this.#source.unclaim();
    // After an error the other side shall not wait for more; else it reads what was written.
    const closed = this.#source.close(error === null ? {} : { signal: AbortSignal.abort() });
    closed.then(
      () => callback(error),
      () => callback(error),
    );
  }

  async #send(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; at += this.#pieceBytes) {
      await this.#source.send(chunk.subarray(at, at + this.#pieceBytes));
    }
  }

  async #pull(): Promise<void> {
    try {
      while (this.#wanted && !this.#ended) {
        if (!(await this.#source.readable())) throw endedEarly();
        if (!this.#ended) this.#source.drain(this.#onMessage, MESSAGES_PER_READ);
      }
    } catch (error) {
      if (!this.#ended) this.destroy(error as Error);
    } finally {
      this.#reading = false;
    }
  }

  readonly #onMessage = (message: MessageCursor): void => {
    if (this.#ended) return;
    if (message.lengthBytes === 0) {
      this.#ended = true;
      this.push(null);
      return;
    }
    const bytes = Buffer.allocUnsafe(message.lengthBytes);
    message.copyTo(bytes);
    this.#wanted = this.push(bytes);
  };
}

function endedEarly(): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_PEER_CLOSED',
    'the other side closed before the end of its stream: what was read is not all',
  );
}
