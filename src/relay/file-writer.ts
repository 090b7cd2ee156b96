// A new file, written past the page cache (O_DIRECT) as long as that is possible and fast: the disk
// then takes the bytes out of the reader's own pages, and the last copy of the job is gone. What
// does not fit (a ragged end, odd sizes, a slow disk) goes through the page cache as usual.
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
} from 'node:fs';
import { promisify } from 'node:util';
import { addressOf } from '../sys/memory.js';
import { nowNs } from './control.js';

const fsyncLater = promisify(fsyncWithCallback);

const ALIGN_BYTES = 4096;
/** Below this a trip to the disk costs more than the copy that it saves. */
const DIRECT_BYTES_MIN = 1 << 18;
/** A disk slower than this (160 MB/s) would hold up the three: the page cache takes over then. */
const DIRECT_NS_PER_BYTE_MAX = 6;
/** So much is written before that is judged: one slow write says little. */
const JUDGED_BYTES = 1 << 24;
/** tmpfs accepts O_DIRECT and copies all the same. Source: linux/magic.h. */
const TMPFS_MAGIC = 0x01021994;

/** Writes one new file from its beginning to its end. */
export class FileWriter {
  readonly #file: number;
  #direct: number | undefined;
  #position = 0;
  #directBytes = 0;
  #directNs = 0;

  /**
   * Creates the file; synchronous, like all of its writes.
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

  write(bytes: Uint8Array): void {
    let done = this.#writeDirect(bytes);
    while (done < bytes.length) {
      const count = writeSync(this.#file, bytes, done, bytes.length - done, this.#position);
      done += count;
      this.#position += count;
    }
  }

  /** Resolves when the bytes are on the disk; the file is then closed. */
  async finish(): Promise<void> {
    await fsyncLater(this.#file);
    this.#stopDirect();
    closeSync(this.#file);
  }

  /** As much of `bytes` as can go this way; returns how much it was. */
  #writeDirect(bytes: Uint8Array): number {
    const lengthBytes = bytes.length - (bytes.length % ALIGN_BYTES);
    if (this.#direct === undefined || lengthBytes < DIRECT_BYTES_MIN) return 0;
    if (this.#position % ALIGN_BYTES !== 0 || addressOf(bytes) % ALIGN_BYTES !== 0) return 0;
    const beforeNs = nowNs();
    let done = 0;
    try {
      done = writeSync(this.#direct, bytes, 0, lengthBytes, this.#position);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      // This file system, or its device, wants something else.
      this.#stopDirect();
      return 0;
    }
    this.#position += done;
    this.#directBytes += done;
    this.#directNs += nowNs() - beforeNs;
    const slow = this.#directNs > this.#directBytes * DIRECT_NS_PER_BYTE_MAX;
    if (slow && this.#directBytes >= JUDGED_BYTES) this.#stopDirect();
    return done;
  }

  #stopDirect(): void {
    if (this.#direct !== undefined) closeSync(this.#direct);
    this.#direct = undefined;
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
