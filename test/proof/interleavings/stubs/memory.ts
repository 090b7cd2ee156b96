// In place of src/sys/memory.ts.
import type { Steps } from '../explore/promise.js';
import { world } from '../explore/world.js';

export function closeDescriptor(fd: number): Steps<void> {
  return world.close(fd);
}
