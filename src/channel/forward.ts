// Forwarding, O → M → T: T reads in place what O sent to M.
//
//     M asks T over their socket to import O's outbox (IMPORT); T maps it read-only through O's own
//     listener, which checks T's credentials and the token that only M was given; T answers
//     (IMPORTED). Then M publishes descriptors into it, and keeps its own hold on each message
//     until T releases it to M. With the last of them, after O's channel to M ended: DROP.
//
// When M dies, T keeps its mapping of O's outbox, and O never writes to that outbox again, because
// an outbox belongs to one channel and ends with it: nothing has to be agreed between O and T
// (docs/decisions/0002).
import { peerMisbehaved, UkshmError } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';
import {
  decodeImport,
  encodeImport,
  encodeNumbers,
  FRAME_DROP,
  FRAME_IMPORT,
  FRAME_IMPORTED,
  type ImportFrame,
} from './frames.js';
import { PRIVATE, type ReceivedMessage } from './message.js';
import type { Receiver } from './receiver.js';
import type { Sender } from './sender.js';
import type { SpaceWaits } from './space.js';
import { unlessAborted } from './waiters.js';

/** Regions that one peer may ask this side to map at a time. */
const IMPORTS_MAX = 64;

/** Where the outbox can be imported in which a channel's messages lie. */
export class Origin {
  /** `sockaddr_un` of its owner's listener. */
  readonly address: Uint8Array;
  readonly uid: number;
  readonly token: Uint8Array;
  readonly #onEnd: Set<() => void> = new Set();
  #ended = false;

  constructor(address: Uint8Array, uid: number, token: Uint8Array) {
    this.address = address;
    this.uid = uid;
    this.token = token;
  }

  get ended(): boolean {
    return this.#ended;
  }

  onEnd(callback: () => void): void {
    this.#onEnd.add(callback);
  }

  offEnd(callback: () => void): void {
    this.#onEnd.delete(callback);
  }

  /** The channel ended: nothing new comes from this outbox. */
  end(): void {
    this.#ended = true;
    for (const callback of this.#onEnd) callback();
    this.#onEnd.clear();
  }
}

/** What a channel offers to those that send through it from memory that is not its own. */
export interface ForwardTarget {
  readonly importer: Importer;
  readonly sender: Sender;
  readonly space: SpaceWaits;
  /** Ends the channel if `action` finds that the peer misbehaves; throws what it throws. */
  readonly guard: <T>(action: () => T) => T;
}

/** A region that the peer mapped for our sake. */
export interface Exported {
  readonly region: number;
  readonly origin: Origin;
  /** Resolves when the peer has mapped it. */
  readonly ready: Promise<void>;
  settle: (error: UkshmError | undefined) => void;
  /** What the origin calls when it ends. */
  readonly originEnded: () => void;
  mapped: boolean;
  /** Messages of it that the peer holds, or that wait to be handed on. */
  lent: number;
}

/** Maps a region of a third process. Given by the connector's side of ukshm. */
export type MapRegion = (frame: ImportFrame) => Promise<Mapping>;

/** One channel's imports: those that the peer does for us, and those that we do for it. */
export class Importer {
  readonly #mapRegion: MapRegion;
  readonly #exported: Map<Origin, Exported> = new Map();
  readonly #byRegion: Map<number, Exported> = new Map();
  #sendFrame: (bytes: Uint8Array) => void = () => {};
  #receiver: Receiver | undefined = undefined;
  #importing = 0;
  #lastRegion = 0;
  #stopped: UkshmError | undefined = undefined;

  constructor(mapRegion: MapRegion) {
    this.#mapRegion = mapRegion;
  }

  start(sendFrame: (bytes: Uint8Array) => void, receiver: Receiver): void {
    this.#sendFrame = sendFrame;
    this.#receiver = receiver;
  }

  /** The channel ended: those who wait for an import are told. */
  stop(error: UkshmError): void {
    this.#stopped = error;
    for (const exported of this.#exported.values()) {
      exported.origin.offEnd(exported.originEnded);
      exported.settle(error);
    }
  }

  /** Counts one message of `origin` more, and has the peer map its region; await `ready`. */
  handOut(origin: Origin): Exported {
    if (this.#stopped !== undefined) throw this.#stopped;
    const exported = this.#exported.get(origin) ?? this.#ask(origin);
    exported.lent++;
    return exported;
  }

  /** A message came back from the peer, or was not handed on. */
  cameBack(exported: Exported): void {
    exported.lent--;
    this.#maybeDrop(exported);
  }

  onFrame(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const region = view.getUint32(1, true);
    switch (bytes[0]) {
      case FRAME_IMPORT:
        this.#import(decodeImport(bytes));
        break;
      case FRAME_IMPORTED:
        this.#onImported(region, view.getUint32(5, true) === 1);
        break;
      case FRAME_DROP:
        this.#receiver?.imports.drop(region);
        break;
      default:
        throw peerMisbehaved(`a frame of type ${bytes[0]}`);
    }
  }

  #ask(origin: Origin): Exported {
    const region = ++this.#lastRegion;
    let settle: Exported['settle'] = () => {};
    const ready = new Promise<void>((resolve, reject) => {
      settle = (error) => (error === undefined ? resolve() : reject(error));
    });
    // Whoever waits is told; nobody waiting is no error.
    ready.catch(() => {});
    const originEnded = (): void => this.#maybeDrop(exported);
    const exported = { region, origin, ready, settle, originEnded, mapped: false, lent: 0 };
    this.#exported.set(origin, exported);
    this.#byRegion.set(region, exported);
    origin.onEnd(originEnded);
    const { address, uid, token } = origin;
    this.#sendFrame(encodeImport({ region, token, uid, address }));
    return exported;
  }

  #onImported(region: number, mapped: boolean): void {
    const exported = this.#byRegion.get(region);
    if (exported === undefined) throw peerMisbehaved(`it imported region ${region}, never asked`);
    if (mapped) {
      exported.mapped = true;
      exported.settle(undefined);
      this.#maybeDrop(exported);
      return;
    }
    this.#forget(exported);
    exported.settle(
      new UkshmError(
        'ERR_UKSHM_CANNOT_FORWARD',
        'the next process may not map the memory in which this message lies: its sender must ' +
          "admit it in 'access' (or send a copy: send(message.bytes))",
      ),
    );
  }

  #maybeDrop(exported: Exported): void {
    if (exported.lent > 0 || !exported.mapped || !exported.origin.ended) return;
    if (!this.#byRegion.has(exported.region)) return;
    this.#forget(exported);
    this.#sendFrame(encodeNumbers(FRAME_DROP, exported.region));
  }

  #forget(exported: Exported): void {
    exported.origin.offEnd(exported.originEnded);
    this.#exported.delete(exported.origin);
    this.#byRegion.delete(exported.region);
  }

  #import(frame: ImportFrame): void {
    const receiver = this.#receiver;
    if (receiver === undefined || receiver.imports.has(frame.region) || frame.region === 0) {
      throw peerMisbehaved(`region ${frame.region} imported twice`);
    }
    if (receiver.imports.count + this.#importing >= IMPORTS_MAX) {
      this.#sendFrame(encodeNumbers(FRAME_IMPORTED, frame.region, 0));
      return;
    }
    this.#importing++;
    this.#mapRegion(frame).then(
      (mapping) => {
        this.#importing--;
        if (this.#stopped !== undefined || receiver.closed || receiver.imports.has(frame.region)) {
          mapping.close();
          return;
        }
        receiver.imports.add(frame.region, mapping);
        this.#sendFrame(encodeNumbers(FRAME_IMPORTED, frame.region, 1));
      },
      () => {
        this.#importing--;
        this.#sendFrame(encodeNumbers(FRAME_IMPORTED, frame.region, 0));
      },
    );
  }
}

/** Hands `message` of `receiver`'s channel on to `target`; see `Message.forward`. */
export async function carry(
  receiver: Receiver,
  message: ReceivedMessage,
  origin: Origin | undefined,
  target: ForwardTarget,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  const { importer, sender, space, guard } = target;
  const { memory, offset, lengthBytes, type, id } = message;
  if (message.lease === PRIVATE) {
    const send = (): true | undefined => sender.trySend(memory, type, id, true) || undefined;
    await space.when(() => guard(send), signal);
    return;
  }
  if (message.region !== 0) {
    throw new UkshmError(
      'ERR_UKSHM_CANNOT_FORWARD',
      'this message was forwarded to us: it can be handed on once; send(message.bytes) copies it',
    );
  }
  if (origin === undefined) {
    throw new UkshmError(
      'ERR_UKSHM_CANNOT_FORWARD',
      'the sender of this message has no listener through which others could map its memory: let ' +
        'it pass one in connect(name, { forwardVia: listener }), or copy: send(message.bytes)',
    );
  }
  const exported = importer.handOut(origin);
  const comeBack = (): void => {
    receiver.release(message);
    importer.cameBack(exported);
  };
  const attempt = (): true | undefined =>
    sender.tryForward({ comeBack }, exported.region, offset, lengthBytes, type, id) || undefined;
  try {
    await unlessAborted(exported.ready, signal);
    await space.when(() => guard(attempt), signal);
  } catch (error) {
    importer.cameBack(exported);
    throw error;
  }
  space.expectReleases();
}
