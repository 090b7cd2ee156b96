// The connector's side of a meeting.
import { checkInteger } from '../../core/check.js';
import { peerMisbehaved } from '../../core/errors.js';
import type { Mapping } from '../../memory/mapping.js';
import { outboxLayout } from '../../memory/outbox-layout.js';
import { random } from '../../sys/clock.js';
import { closeDescriptor, closeForeign } from '../../sys/memory.js';
import type { Credentials } from '../../sys/socket.js';
import { Channel } from '../channel.js';
import { describe } from '../ends.js';
import { Importer, Origin } from '../forward.js';
import { TOKEN_BYTES, tokenKey } from '../frames.js';
import { type Access, admits, checkAccess } from './access.js';
import { type Address, addressOfName } from './address.js';
import { type Deadline, readWithDescriptors, writeAll, writeHello } from './handshake-io.js';
import type { Listener } from './listener.js';
import {
  both,
  checkArenaBytes,
  checkRingBytes,
  closeAll,
  type EndOptions,
  endSettings,
  MEETING_TIMEOUT_MS,
  plausibleSizes,
  watchPeer,
} from './meeting.js';
import { checkOutbox, mapOwn, mapPeer } from './outbox.js';
import { reach } from './reach.js';
import { importRegion, inTime } from './visits.js';
import {
  DEFAULT_SIZE,
  decodeWelcome,
  encodeAck,
  encodeHello,
  FLAG_CANNOT_FENCE,
  FLAG_HUGE_PAGES,
  type Hello,
  WELCOME_BYTES,
  type Welcome,
} from './wire.js';

const NO_DESCRIPTORS = new Int32Array(0);

/** How a channel is to be, as its connector wants it. */
export interface ConnectOptions extends EndOptions {
  /** To whom the listener must belong; checked before anything is sent. Default `'same-user'`. */
  readonly owner?: Access;
  /** Wait until there is a listener, instead of `ERR_UKSHM_NO_LISTENER`. Default false. */
  readonly wait?: boolean;
  readonly signal?: AbortSignal;
  /** How long the listener may take to answer. Default 5000. */
  readonly timeoutMs?: number;
  /** Record rings and arenas by direction; the listener's defaults if left out. */
  readonly sendRingBytes?: number;
  readonly sendArenaBytes?: number;
  readonly receiveRingBytes?: number;
  readonly receiveArenaBytes?: number;
  /** A listener of this process through which others may map what the peer forwards of ours. */
  readonly forwardVia?: Listener;
}

/**
 * Meets the listener at `name`.
 *
 * @throws UkshmError `ERR_UKSHM_NO_LISTENER`, `ERR_UKSHM_WRONG_OWNER` (and who has the name),
 * `ERR_UKSHM_ACCESS_DENIED`, `ERR_UKSHM_LIMIT`, `ERR_UKSHM_VERSION`, `ERR_UKSHM_TIMEOUT`,
 * `ERR_UKSHM_PEER_GONE`, `ERR_UKSHM_PEER_MISBEHAVED`, `ERR_UKSHM_INVALID_ARGUMENT`; the signal's
 * reason.
 */
export async function connect(name: string, options: ConnectOptions = {}): Promise<Channel> {
  const owner = checkAccess('owner', options.owner ?? 'same-user');
  const timeoutMs = options.timeoutMs ?? MEETING_TIMEOUT_MS;
  checkInteger('timeoutMs', timeoutMs, 1, 600000);
  const settings = endSettings(options);
  const hello = helloFor(options);
  const deadline: Deadline = { what: `connecting to '${name}'`, timeoutMs, signal: options.signal };
  const uids = typeof owner === 'object' && owner.uids !== undefined ? owner.uids : [undefined];
  const addresses = uids.map((uid) => addressOfName(name, uid));
  const { fd, address, peer } = await reach(addresses, owner, options.wait ?? false, deadline);
  const fds = new Int32Array(2).fill(-1);
  try {
    await writeHello(fd, encodeHello(hello), deadline);
    const bytes = await readWithDescriptors(fd, WELCOME_BYTES, fds, deadline);
    const welcome = decodeWelcome(bytes, name);
    const mapped = await mapBoth(fds, welcome, name, peer, deadline);
    closeDescriptor(fds[0] as number);
    fds[0] = -1;
    return await complete({ name, fd, peer, address, hello, options, deadline }, mapped, settings);
  } catch (error) {
    closeDescriptor(fd);
    closeForeign(fds);
    throw error;
  }
}

function helloFor(options: ConnectOptions): Hello {
  const ring = (name: string, value: number | undefined): number =>
    value === undefined ? DEFAULT_SIZE : checkRingBytes(name, value);
  const arena = (name: string, value: number | undefined): number =>
    value === undefined ? DEFAULT_SIZE : checkArenaBytes(name, value);
  return {
    kind: 'channel',
    flags: 0,
    sendRingBytes: ring('sendRingBytes', options.sendRingBytes),
    sendArenaBytes: arena('sendArenaBytes', options.sendArenaBytes),
    receiveRingBytes: ring('receiveRingBytes', options.receiveRingBytes),
    receiveArenaBytes: arena('receiveArenaBytes', options.receiveArenaBytes),
    token: random(TOKEN_BYTES),
    importAddress: options.forwardVia?.addressBytes ?? new Uint8Array(0),
  };
}

interface Mapped {
  readonly welcome: Welcome;
  readonly ownFd: number;
  readonly own: Mapping;
  readonly other: Mapping;
}

async function mapBoth(
  fds: Int32Array,
  welcome: Welcome,
  name: string,
  peer: Credentials,
  deadline: Deadline,
): Promise<Mapped> {
  const [theirs = -1, ours = -1] = fds;
  const { ringBytes, arenaBytes, backRingBytes, backArenaBytes } = welcome;
  if (theirs < 0 || ours < 0) throw peerMisbehaved('its welcome came without two descriptors');
  if (!plausibleSizes(ringBytes, arenaBytes) || !plausibleSizes(backRingBytes, backArenaBytes)) {
    throw peerMisbehaved('its welcome names impossible sizes');
  }
  const huge = (welcome.flags & FLAG_HUGE_PAGES) !== 0;
  const back = outboxLayout(backRingBytes, backArenaBytes);
  const out = outboxLayout(ringBytes, arenaBytes);
  const checks = [checkOutbox(theirs, out, huge, true), checkOutbox(ours, back, huge, false)];
  await inTime(Promise.all(checks), deadline);
  const [own, other] = await both(
    [mapOwn(ours, back, huge, name), mapPeer(theirs, out, huge, name, describe(peer))],
    (mapping) => mapping.close(),
  );
  return { welcome, ownFd: ours, own, other };
}

interface Meeting {
  readonly name: string;
  readonly fd: number;
  readonly peer: Credentials;
  readonly address: Address;
  readonly hello: Hello;
  readonly options: ConnectOptions;
  readonly deadline: Deadline;
}

async function complete(
  meeting: Meeting,
  mapped: Mapped,
  settings: ReturnType<typeof endSettings>,
): Promise<Channel> {
  const { name, fd, peer, address, hello, options, deadline } = meeting;
  const { welcome, own, other, ownFd } = mapped;
  try {
    await writeAll(fd, encodeAck(), NO_DESCRIPTORS, deadline);
  } catch (error) {
    own.close();
    other.close();
    throw error;
  }
  const { ringBytes, arenaBytes, backRingBytes, backArenaBytes } = welcome;
  const ownLayout = outboxLayout(backRingBytes, backArenaBytes);
  const hugePages = (welcome.flags & FLAG_HUGE_PAGES) !== 0;
  const owned = (owner: Credentials): boolean =>
    admits('same-user', owner) || owner.uid === peer.uid;
  const key = tokenKey(hello.token);
  options.forwardVia?.exports.set(key, { fd: ownFd, layout: ownLayout, hugePages });
  return new Channel({
    name,
    peer,
    fd,
    pidfd: watchPeer(fd, peer),
    own,
    ownLayout,
    other,
    otherLayout: outboxLayout(ringBytes, arenaBytes),
    ...settings,
    peerCannotFence: (welcome.flags & FLAG_CANNOT_FENCE) !== 0,
    origin: new Origin(address.bytes, peer.uid, welcome.token),
    // A peer of another user, wished for in `owner`, may share memory of its own.
    importer: new Importer((frame) => importRegion(frame, owned)),
    onEnd: () => {
      options.forwardVia?.exports.delete(key);
      closeAll(ownFd);
    },
  });
}
