// Memory of a program's own for what was received: it may keep it, write to it and transfer it.
// To find it takes longer than to fill it, page by page: twice up to ten times.
import { MADV_HUGEPAGE } from '../abi/mman.js';
import { roundUp } from '../core/u32.js';
import { addressOf, advise, PAGE_BYTES } from '../sys/memory.js';

/** From here on huge pages pay. */
const HUGE_BYTES_MIN = 4194304;
/** glibc keeps freed blocks up to this size, if it was ever freed one of it (mallopt(3)). */
const KEPT_BYTES_MAX = 33554432;
const MALLOC_OVERHEAD_BYTES = 65536;

/** Bytes with an ArrayBuffer to themselves; what they hold is undefined. */
export function freshBytes(lengthBytes: number): Uint8Array {
  const bytes = Buffer.allocUnsafeSlow(lengthBytes);
  if (lengthBytes < HUGE_BYTES_MIN) return bytes;
  const address = addressOf(bytes);
  const start = roundUp(address, PAGE_BYTES);
  const wholeBytes = Math.floor((address + lengthBytes - start) / PAGE_BYTES) * PAGE_BYTES;
  // Only a hint: where the kernel has no huge pages it says so, and all is as without it.
  advise(start, wholeBytes, MADV_HUGEPAGE);
  return bytes;
}

/**
 * Lets glibc keep what is freed, up to 64 MiB, as it does by itself once a block of 32 MiB was
 * freed: blocks of a megabyte would otherwise go back to the kernel, to be found page by page again.
 */
export function keepFreed(): void {
  const { port1, port2 } = new MessageChannel();
  const block = Buffer.allocUnsafeSlow(KEPT_BYTES_MAX - MALLOC_OVERHEAD_BYTES);
  // Never touched, so it costs address space alone; freed with the port that it was sent to.
  port1.postMessage(null, [block.buffer as ArrayBuffer]);
  port1.close();
  port2.close();
}
