// Which physical page lies under an address of this process: /proc/self/pagemap, eight bytes a page.
//
//     63        62       61            55           54 … 0
//     present   swapped  file/shared   soft-dirty   page frame number, 0 without CAP_SYS_ADMIN
//
// Source: Documentation/admin-guide/mm/pagemap.rst; the numbers are hidden since Linux 4.0.
import { closeSync, openSync, readSync } from 'node:fs';
import { addressOf } from '../sys/memory.js';
import type { FrameReport } from './control.js';

const PAGE_BYTES = 4096;
const ENTRY_BYTES = 8;

/**
 * The page frame under the first of `bytes`, as this process sees it.
 *
 * @param bytes - not empty; its first is read, since a page that was never touched has no frame here.
 */
export function frameAt(bytes: Uint8Array): FrameReport {
  const address = addressOf(bytes);
  if (bytes[0] === undefined) return { address, reason: 'there are no bytes' };
  const entry = Buffer.alloc(ENTRY_BYTES);
  try {
    const file = openSync('/proc/self/pagemap', 'r');
    try {
      const position = Math.floor(address / PAGE_BYTES) * ENTRY_BYTES;
      readSync(file, entry, 0, ENTRY_BYTES, position);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    return { address, reason: `/proc/PID/pagemap: ${(error as NodeJS.ErrnoException).code}` };
  }
  const high = entry.readUInt32LE(4);
  if (high >>> 31 === 0) return { address, reason: 'the page is not in memory' };
  const frame = (high & 0x7f_ffff) * 2 ** 32 + entry.readUInt32LE(0);
  if (frame === 0) return { address, reason: 'the kernel shows page frames to root only' };
  return { address, frame };
}
