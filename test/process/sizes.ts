// Message lengths at which something changes: empty, one, word and record alignment, inline to
// chunk (8 KiB), the granule, 64 KiB, and the whole of the usual arena.
const KIB = 1024;

/** The usual arena's size: the longest message. */
export const ARENA_BYTES: number = 4 * KIB * KIB;

export const ECHO_SIZES: readonly number[] = [
  ...[0, 1, 7, 8, 9, 63, 64, 65, 1000],
  ...[8 * KIB - 1, 8 * KIB, 8 * KIB + 1],
  ...[64 * KIB - 1, 64 * KIB, 64 * KIB + 1],
  ...[KIB * KIB, ARENA_BYTES],
];
