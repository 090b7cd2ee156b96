// A new file. Large ones are written past the page cache (O_DIRECT): the disk takes the bytes out of
// the reader's own pages, which saves the last copy, and the cache keeps what others have in it.
// What does not fit (a ragged end, odd sizes) goes through the page cache as usual.
//
// Source: open(2), O_DIRECT: address, length and offset must be aligned; 4096 fits every device.
import {
  closeSync,
  constants,
  fchmodSync,
  fsync as fsyncWithCallback,
  openSync,
  statfsSync,
  writeSync,
  write as writeWithCallback,
} from 'node:fs';
import { promisify } from 'node:util';
import { addressOf } from '../sys/memory.js';

const fsyncLater = promisify(fsyncWithCallback);
const writeLater = promisify(writeWithCallback);

const ALIGN_BYTES = 4096;
/** Below this a trip to the disk costs more than the copy that it saves. */
const DIRECT_BYTES_MIN = 1 << 18;
/** Writes that the disk has at a time: the threads of Node's pool. */
const DEPTH = 4;
/** tmpfs accepts O_DIRECT and copies all the same. Source: linux/magic.h. */
const TMPFS_MAGIC = 0x01021994;

/** Writes one new file from its beginning to its end. */
export class FileWriter {
  readonly #file: number;
  readonly #pending: Set<Promise<void>> = new Set();
  #direct: number | undefined;
  #position = 0;
  #directBytes = 0;

  /**
   * Creates the file.
   *
   * @param path - must not exist: nobody else's file is opened, nor a link that somebody put there.
   * @throws an error of the file system.
   */
  constructor(path: string, mode: number | undefined, direct: boolean) {
    this.#file = openSync(path, 'wx', 0o666);
    if (mode !== undefined) fchmodSync(this.#file, mode);
    if (direct) this.#direct = openDirect(path);
  }

  /** Bytes that no processor copied. */
  get directBytes(): number {
    return this.#directBytes;
  }

  /**
   * Takes the next bytes of the file and calls `release` when they are no longer needed, which may
   * be later. Resolves when there is room for more.
   *
   * @throws an error of the file system, of these bytes or of earlier ones.
   */
  async take(bytes: Uint8Array, release: () => void): Promise<void> {
    const position = this.#position;
    this.#position += bytes.length;
    if (!this.#fits(bytes, position)) {
      // On this thread: the hand-over to Node's pool costs as much as the call.
      this.#writeCached(bytes, 0, position);
      release();
      return;
    }
    const written = this.#writeDirect(bytes, position).then(() => {
      this.#pending.delete(written);
      release();
    });
    // Whoever takes, drains or finishes next is told.
    written.catch(() => {});
    this.#pending.add(written);
    while (this.#pending.size >= DEPTH) await Promise.race(this.#pending);
  }

  /** Resolves when everything that was taken has been written. */
  async drain(): Promise<void> {
    await Promise.all(this.#pending);
  }

  /** Resolves when the bytes are on the disk; the file is then closed. */
  async finish(): Promise<void> {
    await this.drain();
    await fsyncLater(this.#file);
    if (this.#direct !== undefined) closeSync(this.#direct);
    closeSync(this.#file);
  }

  #fits(bytes: Uint8Array, position: number): boolean {
    if (this.#direct === undefined || bytes.length < DIRECT_BYTES_MIN) return false;
    return position % ALIGN_BYTES === 0 && addressOf(bytes) % ALIGN_BYTES === 0;
  }

  /** What is aligned goes to the disk, the rest through the cache: other pages of the file. */
  async #writeDirect(bytes: Uint8Array, position: number): Promise<void> {
    const lengthBytes = bytes.length - (bytes.length % ALIGN_BYTES);
    let done = 0;
    try {
      const file = this.#direct as number;
      done = (await writeLater(file, bytes, 0, lengthBytes, position)).bytesWritten;
    } catch (error) {
      // EINVAL: this file system, or its device, wants something else.
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    }
    this.#directBytes += done;
    this.#writeCached(bytes, done, position);
  }

  #writeCached(bytes: Uint8Array, from: number, position: number): void {
    let done = from;
    while (done < bytes.length) {
      done += writeSync(this.#file, bytes, done, bytes.length - done, position + done);
    }
  }
}

function openDirect(path: string): number | undefined {
  try {
    if (statfsSync(path).type === TMPFS_MAGIC) return undefined;
    return openSync(path, constants.O_WRONLY | constants.O_DIRECT);
  } catch {
    // EINVAL: not on this file system.
    return undefined;
  }
}
