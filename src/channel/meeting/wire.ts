// What crosses the socket in a meeting, byte by byte (docs/FORMAT.md says the same in prose):
// HELLO (connector), WELCOME with descriptors (listener), ACK (connector), each of a fixed length.
// What follows are frames (frames.ts).
import { UNIX_PATH_MAX } from '../../abi/socket.js';
import { peerMisbehaved, UkshmError } from '../../core/errors.js';
import { LAYOUT_VERSION } from '../../memory/outbox-layout.js';
import { TOKEN_BYTES } from '../frames.js';

export const HELLO_BYTES = 256;
export const WELCOME_BYTES = 64;
export const ACK_BYTES = 16;

/** In HELLO: the listener's default. */
export const DEFAULT_SIZE = 0xffffffff;

const HELLO_MAGIC = 0x49484b55; // 'UKHI'
const WELCOME_MAGIC = 0x45574b55; // 'UKWE'
const ACK_MAGIC = 0x4b4f4b55; // 'UKOK'

/** What a connector wants. */
export type Kind = 'channel' | 'import' | 'info';
const KINDS: readonly Kind[] = ['channel', 'import', 'info'];

/** Flags of HELLO and WELCOME. */
export const FLAG_CANNOT_FENCE = 1;
export const FLAG_HUGE_PAGES = 2;

/** Why a listener refuses; the index is the status in WELCOME. */
const REFUSALS = [
  'none',
  'version',
  'access',
  'limit',
  'no-memory',
  'unknown-token',
  'malformed',
] as const;
export type Refusal = (typeof REFUSALS)[number];

export interface Hello {
  readonly kind: Kind;
  readonly flags: number;
  readonly sendRingBytes: number;
  readonly sendArenaBytes: number;
  readonly receiveRingBytes: number;
  readonly receiveArenaBytes: number;
  /** import: of which outbox; channel: by which the connector's outbox can be imported. */
  readonly token: Uint8Array;
  /** `sockaddr_un` of the connector's own listener; empty: none. */
  readonly importAddress: Uint8Array;
}

export function encodeHello(hello: Hello): Uint8Array {
  const bytes = new Uint8Array(HELLO_BYTES);
  const view = new DataView(bytes.buffer);
  const numbers = [
    HELLO_MAGIC,
    LAYOUT_VERSION,
    KINDS.indexOf(hello.kind),
    hello.flags,
    hello.sendRingBytes,
    hello.sendArenaBytes,
    hello.receiveRingBytes,
    hello.receiveArenaBytes,
  ];
  numbers.forEach((value, i) => {
    view.setUint32(i * 4, value, true);
  });
  bytes.set(hello.token, 32);
  view.setUint32(40, hello.importAddress.length, true);
  bytes.set(hello.importAddress, 44);
  return bytes;
}

/** The HELLO, or why it is refused. */
export function decodeHello(bytes: Uint8Array): Hello | Refusal {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== HELLO_MAGIC) return 'malformed';
  if (view.getUint32(4, true) !== LAYOUT_VERSION) return 'version';
  const kind = KINDS[view.getUint32(8, true)];
  const addressLength = view.getUint32(40, true);
  if (kind === undefined || addressLength > UNIX_PATH_MAX + 2) return 'malformed';
  return {
    kind,
    flags: view.getUint32(12, true),
    sendRingBytes: view.getUint32(16, true),
    sendArenaBytes: view.getUint32(20, true),
    receiveRingBytes: view.getUint32(24, true),
    receiveArenaBytes: view.getUint32(28, true),
    token: bytes.slice(32, 32 + TOKEN_BYTES),
    importAddress: bytes.slice(44, 44 + addressLength),
  };
}

export interface Welcome {
  readonly flags: number;
  /** Listener to connector. For kind info: the length of the JSON text that follows. */
  readonly ringBytes: number;
  readonly arenaBytes: number;
  /** Connector to listener. */
  readonly backRingBytes: number;
  readonly backArenaBytes: number;
  /** By which the listener's outbox can be imported. */
  readonly token: Uint8Array;
}

export function encodeWelcome(welcome: Welcome): Uint8Array {
  const bytes = new Uint8Array(WELCOME_BYTES);
  const view = new DataView(bytes.buffer);
  const { flags, ringBytes, arenaBytes, backRingBytes, backArenaBytes } = welcome;
  const numbers = [WELCOME_MAGIC, LAYOUT_VERSION, 0, flags];
  [...numbers, ringBytes, arenaBytes, backRingBytes, backArenaBytes].forEach((value, i) => {
    view.setUint32(i * 4, value, true);
  });
  bytes.set(welcome.token, 32);
  return bytes;
}

export function encodeRefusal(refusal: Refusal): Uint8Array {
  const bytes = encodeWelcome({
    flags: 0,
    ringBytes: 0,
    arenaBytes: 0,
    backRingBytes: 0,
    backArenaBytes: 0,
    token: new Uint8Array(TOKEN_BYTES),
  });
  new DataView(bytes.buffer).setUint32(8, REFUSALS.indexOf(refusal), true);
  return bytes;
}

/** @throws the refusal as an error, or `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_VERSION`. */
export function decodeWelcome(bytes: Uint8Array, name: string): Welcome {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== WELCOME_MAGIC) throw peerMisbehaved('its welcome is none');
  const version = view.getUint32(4, true);
  if (version !== LAYOUT_VERSION) throw refused('version', name);
  const status = view.getUint32(8, true);
  if (status !== 0) throw refused(REFUSALS[status] ?? 'malformed', name);
  return {
    flags: view.getUint32(12, true),
    ringBytes: view.getUint32(16, true),
    arenaBytes: view.getUint32(20, true),
    backRingBytes: view.getUint32(24, true),
    backArenaBytes: view.getUint32(28, true),
    token: bytes.slice(32, 32 + TOKEN_BYTES),
  };
}

function refused(refusal: Refusal, name: string): UkshmError {
  const who = `the listener '${name}'`;
  switch (refusal) {
    case 'version':
      return new UkshmError(
        'ERR_UKSHM_VERSION',
        `${who} speaks another version of the protocol: use the same ukshm on both sides`,
      );
    case 'access':
      return new UkshmError(
        'ERR_UKSHM_ACCESS_DENIED',
        `${who} does not admit this process: name its user or process id in listen()'s 'access'`,
      );
    case 'limit':
      return new UkshmError(
        'ERR_UKSHM_LIMIT',
        `${who} has reached a limit (channels, memory a user, or arena size): ask for less, ` +
          'close channels, or raise maxChannels, maxBytesPerUser, maxArenaBytes there',
      );
    case 'no-memory':
      return new UkshmError('ERR_UKSHM_NO_MEMORY', `${who} found no memory for this channel`);
    case 'unknown-token':
      return new UkshmError('ERR_UKSHM_CANNOT_FORWARD', `${who} has no such outbox any more`);
    default:
      return new UkshmError('ERR_UKSHM_PEER_MISBEHAVED', `${who} did not understand our greeting`);
  }
}

export function encodeAck(): Uint8Array {
  const bytes = new Uint8Array(ACK_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ACK_MAGIC, true);
  view.setUint32(4, LAYOUT_VERSION, true);
  return bytes;
}

export function isAck(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(0, true) === ACK_MAGIC && view.getUint32(4, true) === LAYOUT_VERSION;
}
