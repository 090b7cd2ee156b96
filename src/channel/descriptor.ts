// Where a drain is: at a record of the ring, or at what a descriptor describes.
//
//     descriptor: | u32 offset | u32 length | u32 lease | u32 generation | u32 region | u32 type |
import { peerMisbehaved } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';
import { type OutboxLayout, RELEASE_SLOTS } from '../memory/outbox-layout.js';
import type { Imports } from './imports.js';
import { type Kind, kindOf, MESSAGE, REQUEST, TYPE_MAX } from './kinds.js';
import { type DrainCursor, INLINE } from './message.js';

/** In place of a lease number: what a drain is at is a message of its own by now. */
export const TAKEN = -3;
/** In place of a lease number: a drain is at a message that had been set aside. */
export const ASIDE = -4;

/** Where descriptors may point: the peer's outbox, and what the peer forwards from. */
export interface Reach {
  readonly mapping: Mapping;
  readonly layout: OutboxLayout;
  readonly imports: Imports;
}

export class Place {
  /** The lease number of a descriptor; else INLINE, TAKEN or ASIDE. */
  lease: number = INLINE;
  generation = 0;
  region = 0;

  /**
   * Reads the descriptor at `at` once, checks it, and points the cursor at what it describes.
   * @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`.
   */
  readDescriptor(at: number, id: number, reach: Reach, cursor: DrainCursor): Kind {
    const { words } = reach.mapping;
    const index = at >> 2;
    const offset = (words[index] as number) >>> 0;
    const lengthBytes = (words[index + 1] as number) >>> 0;
    const lease = (words[index + 2] as number) >>> 0;
    const generation = (words[index + 3] as number) >>> 0;
    const region = (words[index + 4] as number) >>> 0;
    const type = (words[index + 5] as number) >>> 0;
    const { bytes, longs } = region === 0 ? reach.mapping : reach.imports.mapping(region);
    const start = region === 0 ? reach.layout.arenaOffset : 0;
    if (offset < start || offset + lengthBytes > bytes.length || lease >= RELEASE_SLOTS) {
      throw peerMisbehaved(
        `a message at ${offset}, ${lengthBytes} bytes long, lease ${lease}, outside its region`,
      );
    }
    const kind = type > TYPE_MAX ? kindOf(type) : MESSAGE;
    cursor.memory = bytes;
    cursor.longs = longs;
    cursor.offset = offset;
    cursor.lengthBytes = lengthBytes;
    cursor.type = type & TYPE_MAX;
    cursor.isRequest = kind === REQUEST;
    cursor.id = id;
    this.lease = lease;
    this.generation = generation;
    this.region = region;
    return kind;
  }
}
