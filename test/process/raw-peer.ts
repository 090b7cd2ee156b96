// A connector and a listener without manners: the meeting step by step, and outboxes in which a
// test writes what it likes.
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
} from '../../src/abi/fcntl.js';
import { addressOfName } from '../../src/channel/meeting/address.js';
import {
  DEFAULT_SIZE,
  decodeWelcome,
  encodeAck,
  encodeHello,
  encodeWelcome,
  HELLO_BYTES,
  WELCOME_BYTES,
} from '../../src/channel/meeting/wire.js';
import { Mapping } from '../../src/memory/mapping.js';
import { type OutboxLayout, outboxLayout, RING_OFFSET } from '../../src/memory/outbox-layout.js';
import { addSeals, closeDescriptor } from '../../src/sys/memory.js';
import {
  accept,
  bind,
  connectSocket,
  receive,
  receiveDescriptors,
  send,
  sendDescriptors,
  startListening,
  unixSocket,
} from '../../src/sys/socket.js';
import { until } from './actors.js';

export const ALL_SEALS: number = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
const EAGAIN = 11;

/** A HELLO that asks for a channel of the listener's usual sizes. */
export function plainHello(): Uint8Array {
  return encodeHello({
    kind: 'channel',
    flags: 0,
    sendRingBytes: DEFAULT_SIZE,
    sendArenaBytes: DEFAULT_SIZE,
    receiveRingBytes: DEFAULT_SIZE,
    receiveArenaBytes: DEFAULT_SIZE,
    token: new Uint8Array(8),
    importAddress: new Uint8Array(0),
  });
}

/** A socket that is connected to a listener of this user. */
export function rawSocket(name: string): number {
  const fd = unixSocket();
  const result = connectSocket(fd, addressOfName(name).bytes);
  if (result < 0) throw new Error(`connect: errno ${-result}`);
  return fd;
}

/** Waits for the other side to hang up; throws what it sends instead. */
export async function hungUp(fd: number): Promise<void> {
  const bytes = new Uint8Array(4096);
  await until('the other side hangs up', () => {
    const result = receive(fd, bytes);
    return result === 0 || (result < 0 && result !== -EAGAIN);
  });
}

/** What a raw connector may do wrong in the meeting. */
export interface Manners {
  /** Seals that it sets on its outbox before it acknowledges. */
  readonly seals?: number;
  readonly ack?: Uint8Array;
}

/** The connector's end of a channel, with nothing between it and its outbox. */
export class RawConnector {
  readonly fd: number;
  readonly layout: OutboxLayout;
  readonly otherLayout: OutboxLayout;
  /** What this side writes. */
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  /** What the victim writes. */
  readonly otherWords: Int32Array;
  readonly #own: Mapping;
  readonly #other: Mapping;
  #closed = false;

  constructor(fd: number, own: Mapping, other: Mapping, layout: OutboxLayout, o: OutboxLayout) {
    this.fd = fd;
    this.layout = layout;
    this.otherLayout = o;
    this.words = own.words;
    this.bytes = own.bytes;
    this.otherWords = other.words;
    this.#own = own;
    this.#other = other;
  }

  store(index: number, value: number): void {
    Atomics.store(this.words, index, value | 0);
  }

  /** Writes a record's header, and its first words, at a position of the ring. */
  record(at: number, lengthField: number, type: number, ...payload: number[]): void {
    const index = (RING_OFFSET + at) >> 2;
    this.words[index] = lengthField | (type << 16);
    this.words[index + 1] = 0;
    this.words.set(
      payload.map((word) => word | 0),
      index + 2,
    );
  }

  ring(): void {
    send(this.fd, Uint8Array.of(1));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeDescriptor(this.fd);
    this.#own.close();
    this.#other.close();
  }
}

/** Meets a listener of this user as a connector would, except for its `manners`. */
export async function rawConnect(name: string, manners: Manners = {}): Promise<RawConnector> {
  const fd = rawSocket(name);
  send(fd, plainHello());
  const fds = new Int32Array(2);
  const welcomeBytes = new Uint8Array(WELCOME_BYTES);
  await until('the welcome comes', () => {
    return receiveDescriptors(fd, welcomeBytes, fds) === WELCOME_BYTES;
  });
  const welcome = decodeWelcome(welcomeBytes, name);
  const layout = outboxLayout(welcome.backRingBytes, welcome.backArenaBytes);
  const otherLayout = outboxLayout(welcome.ringBytes, welcome.arenaBytes);
  const [theirs = -1, ours = -1] = fds;
  const options = { hugePages: false, name };
  const own = new Mapping(ours, layout.totalBytes, { ...options, writable: true });
  const other = new Mapping(theirs, otherLayout.totalBytes, { ...options, writable: false });
  addSeals(ours, manners.seals ?? ALL_SEALS);
  send(fd, manners.ack ?? encodeAck());
  closeDescriptor(ours);
  closeDescriptor(theirs);
  return new RawConnector(fd, own, other, layout, otherLayout);
}

/** A socket that listens where this user's listener of that name would. */
export function rawListen(name: string): number {
  const fd = unixSocket();
  if (bind(fd, addressOfName(name).bytes) < 0 || startListening(fd, 64) < 0) {
    throw new Error(`'${name}' cannot be taken`);
  }
  return fd;
}

/** Accepts one connection and reads its HELLO. */
export async function rawAccept(listening: number): Promise<number> {
  let fd = -1;
  await until('somebody connects', () => {
    fd = accept(listening);
    return fd >= 0;
  });
  const hello = new Uint8Array(HELLO_BYTES);
  await until('its hello comes', () => receive(fd, hello) === HELLO_BYTES);
  return fd;
}

/** A WELCOME of these sizes in both directions. */
export function welcomeOf(ringBytes: number, arenaBytes: number): Uint8Array {
  const back = { backRingBytes: ringBytes, backArenaBytes: arenaBytes };
  return encodeWelcome({ flags: 0, ringBytes, arenaBytes, ...back, token: new Uint8Array(8) });
}

/** Sends bytes with descriptors on the first of them. */
export function sendWith(fd: number, bytes: Uint8Array, fds: readonly number[]): number {
  return sendDescriptors(fd, bytes, Int32Array.from(fds));
}
