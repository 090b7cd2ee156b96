// Byte layout of an outbox: what one side of a channel writes and the other maps read-only.
// Both processes compile these same numbers, so changing any of them must change LAYOUT_VERSION
// and docs/FORMAT.md.
//
//     0        128    256    384          512      640      768     4096
//     | config | tail | head | releaseTail | asleep | asleep | state | record ring | release ring | arena
//                                            for      for
//                                            records  space
//
// Every word is written by the outbox's owner alone. `tail` counts bytes of records published here;
// `head` counts bytes consumed of the OTHER side's ring; `releaseTail` counts releases of the other
// side's chunks. All are free-running u32.
import { roundUp } from '../core/u32.js';

export const LAYOUT_VERSION = 1;
/** 'UKSH' as a little-endian u32. */
export const OUTBOX_MAGIC = 0x48534b55;
/** Cursor spacing in bytes: two 64-byte lines, because x86 prefetches lines in pairs. */
export const CURSOR_STRIDE_BYTES = 128;

// Indices of the words in an Int32Array over the outbox.
export const TAIL_INDEX: number = CURSOR_STRIDE_BYTES / 4;
export const HEAD_INDEX: number = (2 * CURSOR_STRIDE_BYTES) / 4;
export const RELEASE_TAIL_INDEX: number = (3 * CURSOR_STRIDE_BYTES) / 4;
export const ASLEEP_FOR_RECORDS_INDEX: number = (4 * CURSOR_STRIDE_BYTES) / 4;
export const ASLEEP_FOR_SPACE_INDEX: number = (5 * CURSOR_STRIDE_BYTES) / 4;
export const STATE_INDEX: number = (6 * CURSOR_STRIDE_BYTES) / 4;

/** Values of the state word. */
export const STATE_OPEN = 0;
/** The owner publishes nothing more and reads nothing more. */
export const STATE_CLOSING = 1;

/** Where the record ring starts. */
export const RING_OFFSET = 4096;
/** Slots of the release ring: the most chunks that may be lent over one channel at a time. */
export const RELEASE_SLOTS = 4096;
/** One release: u32 lease number, u32 generation. */
export const RELEASE_SLOT_BYTES = 8;

/** Records start at multiples of this, and so do the cursors. */
export const RECORD_ALIGN_BYTES = 8;
/** u16 length, u16 type, u32 correlation id. */
export const RECORD_HEADER_BYTES = 8;
/** A padding record's length counts units of 8 bytes, header included. */
export const TYPE_PADDING = 0xffff;
/** The body describes a chunk. */
export const TYPE_DESCRIPTOR = 0xfffe;
/** The greatest type that a program may use. */
export const TYPE_MAX = 0xfffd;
/** offset, length, lease, generation, region, type: six u32. */
export const DESCRIPTOR_BYTES = 24;

export const RING_BYTES_MIN = 4096;
export const RING_BYTES_MAX: number = 2 ** 30;
export const ARENA_BYTES_MAX: number = 2 ** 30;
/** The most bytes of an inline record, whatever the ring's size. */
export const INLINE_BYTES_MAX = 65520;

/** The sizes of one outbox, agreed in the handshake. */
export interface OutboxLayout {
  /** A power of two. */
  readonly ringBytes: number;
  /** A multiple of 64 KiB; may be 0: then there are inline messages only. */
  readonly arenaBytes: number;
  readonly releaseOffset: number;
  readonly arenaOffset: number;
  readonly totalBytes: number;
}

/** Arenas are multiples of this, so that layouts agree on machines with any page size. */
export const ARENA_UNIT_BYTES = 65536;

/** Where everything lies, from the two sizes that are agreed. */
export function outboxLayout(ringBytes: number, arenaBytes: number): OutboxLayout {
  const releaseOffset = RING_OFFSET + ringBytes;
  const arenaOffset = roundUp(releaseOffset + RELEASE_SLOTS * RELEASE_SLOT_BYTES, ARENA_UNIT_BYTES);
  const totalBytes = arenaOffset + arenaBytes;
  return { ringBytes, arenaBytes, releaseOffset, arenaOffset, totalBytes };
}

/** Writes what is written once, before the outbox is shared: for people who look at the memory. */
export function writeConfig(words: Int32Array, layout: OutboxLayout): void {
  words.set([
    OUTBOX_MAGIC,
    LAYOUT_VERSION,
    layout.ringBytes,
    layout.releaseOffset,
    RELEASE_SLOTS,
    layout.arenaOffset,
    layout.arenaBytes,
  ]);
}
