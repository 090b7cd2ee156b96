// Two parties whose channel is made already: what a meeting ends with, without the meeting.
import { Channel } from '../../../../src/channel/channel.js';
import { Importer, type MapRegion, type Origin } from '../../../../src/channel/forward.js';
import type { ChannelParts } from '../../../../src/channel/parts.js';
import { type OutboxLayout, outboxLayout } from '../../../../src/memory/outbox-layout.js';
import { type Memory, outboxWord } from '../explore/memory.js';
import type { Party } from '../explore/party.js';
import { map } from '../explore/scenario.js';
import type { World } from '../explore/world.js';

export interface PairOptions {
  readonly ringBytes?: number;
  readonly arenaBytes?: number;
  readonly inFlightBytes?: number;
}

/** What only some of the scenarios give an end. */
export interface EndOptions {
  readonly origin?: Origin;
  readonly mapRegion?: MapRegion;
}

export class Pair {
  readonly layout: OutboxLayout;
  /** The outboxes. */
  readonly left: Memory;
  readonly right: Memory;
  readonly #world: World;
  readonly #parties: readonly [Party, Party];
  readonly #fds: readonly [number, number];
  readonly #inFlightBytes: number;

  constructor(world: World, left: Party, right: Party, options: PairOptions = {}) {
    const { ringBytes = 64, arenaBytes = 0, inFlightBytes = 2 ** 20 } = options;
    this.layout = outboxLayout(ringBytes, arenaBytes);
    this.#world = world;
    this.#parties = [left, right];
    this.#inFlightBytes = inFlightBytes;
    const { totalBytes } = this.layout;
    const nameOf = (offset: number): string => outboxWord(offset, this.layout);
    this.left = world.memory(`${left.name}→${right.name}`, totalBytes, nameOf);
    this.right = world.memory(`${right.name}→${left.name}`, totalBytes, nameOf);
    this.#fds = world.socketPair(left, right);
  }

  /** The channel of the left party; call it there. */
  openLeft(options: EndOptions = {}): Channel {
    return this.#open(0, this.left, this.right, options);
  }

  openRight(options: EndOptions = {}): Channel {
    return this.#open(1, this.right, this.left, options);
  }

  #open(side: 0 | 1, own: Memory, other: Memory, options: EndOptions): Channel {
    const peer = this.#parties[side === 0 ? 1 : 0];
    const parts: ChannelParts = {
      name: 'pair',
      peer: { pid: peer.index, uid: 0, gid: 0 },
      fd: this.#fds[side],
      pidfd: this.#world.pidfd(peer),
      own: map(own),
      ownLayout: this.layout,
      other: map(other),
      otherLayout: this.layout,
      inFlightBytes: this.#inFlightBytes,
      spinMicros: 0,
      peerCannotFence: false,
      origin: options.origin,
      importer: new Importer(options.mapRegion ?? (() => Promise.reject(new Error('no region')))),
      onEnd: () => {},
    };
    return new Channel(parts);
  }
}

/** A payload that no other message has. */
export function payload(n: number, lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (n + 1) * 16 + i);
}
