// The connector's side of a meeting, and the import of a third process's outbox.
import { EACCES, EAGAIN, ECONNREFUSED, EINPROGRESS, EINTR, ENOENT, EPERM } from '../abi/errno.js';
import { checkInteger } from '../core/check.js';
import { peerMisbehaved, SyscallError, UkshmError } from '../core/errors.js';
import type { Mapping } from '../memory/mapping.js';
import { outboxLayout } from '../memory/outbox-layout.js';
import { afterAlive, nowMs, random } from '../sys/clock.js';
import { closeAsync, closeDescriptor } from '../sys/memory.js';
import { type Credentials, connectSocket, peerCredentials, unixSocket } from '../sys/socket.js';
import { type Access, admits, checkAccess, describe } from './access.js';
import { type Address, addressOfName } from './address.js';
import { Channel } from './channel.js';
import { Importer, Origin } from './forward.js';
import { type Deadline, readExactly, readWithDescriptors, writeAll } from './handshake-io.js';
import type { Listener } from './listener.js';
import {
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
import {
  DEFAULT_SIZE,
  decodeWelcome,
  encodeAck,
  encodeHello,
  FLAG_CANNOT_FENCE,
  FLAG_HUGE_PAGES,
  type Hello,
  type ImportFrame,
  type Kind,
  TOKEN_BYTES,
  tokenKey,
  WELCOME_BYTES,
  type Welcome,
} from './wire.js';

const NO_DESCRIPTORS = new Int32Array(0);
const WAIT_MS_MIN = 2;
const WAIT_MS_MAX = 100;

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
    await writeAll(fd, encodeHello(hello), NO_DESCRIPTORS, deadline);
    const bytes = await readWithDescriptors(fd, WELCOME_BYTES, fds, deadline);
    const welcome = decodeWelcome(bytes, name);
    const mapped = await mapBoth(fds, welcome, name, peer, deadline);
    void closeAsync(fds[0] as number);
    fds[0] = -1;
    return await complete({ name, fd, peer, address, hello, options, deadline }, mapped, settings);
  } catch (error) {
    closeDescriptor(fd);
    for (const one of fds) if (one >= 0) void closeAsync(one);
    throw error;
  }
}

/** Maps the outbox named by `frame` through its owner's listener. @throws as `connect`. */
export async function importRegion(frame: ImportFrame, owner: Access): Promise<Mapping> {
  const deadline: Deadline = { what: 'importing a region', timeoutMs: MEETING_TIMEOUT_MS };
  const address = { name: 'a forwarded region', abstract: true, bytes: frame.address };
  const { fd, peer } = await reach([address], owner, false, deadline);
  const fds = new Int32Array(1).fill(-1);
  try {
    await writeAll(fd, encodeHello(plainHello('import', frame.token)), NO_DESCRIPTORS, deadline);
    const bytes = await readWithDescriptors(fd, WELCOME_BYTES, fds, deadline);
    const welcome = decodeWelcome(bytes, address.name);
    if (!plausibleSizes(welcome.ringBytes, welcome.arenaBytes)) {
      throw peerMisbehaved('its welcome names impossible sizes');
    }
    const layout = outboxLayout(welcome.ringBytes, welcome.arenaBytes);
    const huge = (welcome.flags & FLAG_HUGE_PAGES) !== 0;
    const outbox = fds[0] as number;
    await inTime(checkOutbox(outbox, layout, huge, true), deadline);
    return await mapPeer(outbox, layout, huge, 'forwarded', describe(peer));
  } finally {
    closeDescriptor(fd);
    for (const one of fds) if (one >= 0) void closeAsync(one);
  }
}

/** What a listener tells of itself, as it came. For directory.ts. */
export async function askInfo(address: Address, timeoutMs: number): Promise<string> {
  const deadline: Deadline = { what: `asking '${address.name}'`, timeoutMs };
  const { fd } = await reach([address], () => true, false, deadline);
  try {
    const hello = plainHello('info', new Uint8Array(TOKEN_BYTES));
    await writeAll(fd, encodeHello(hello), NO_DESCRIPTORS, deadline);
    const welcome = decodeWelcome(await readExactly(fd, WELCOME_BYTES, deadline), address.name);
    if (welcome.ringBytes > 2 ** 24) throw peerMisbehaved('its answer is too long');
    return Buffer.from(await readExactly(fd, welcome.ringBytes, deadline)).toString('utf8');
  } finally {
    closeDescriptor(fd);
  }
}

function plainHello(kind: Kind, token: Uint8Array): Hello {
  return {
    kind,
    flags: 0,
    sendRingBytes: 0,
    sendArenaBytes: 0,
    receiveRingBytes: 0,
    receiveArenaBytes: 0,
    token,
    importAddress: new Uint8Array(0),
  };
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

interface Reached {
  readonly fd: number;
  readonly address: Address;
  readonly peer: Credentials;
}

/** Connects to the first of `addresses` that has a listener, and checks whose it is. */
async function reach(
  addresses: readonly Address[],
  owner: Access,
  wait: boolean,
  deadline: Deadline,
): Promise<Reached> {
  const start = nowMs();
  for (let pauseMs = WAIT_MS_MIN; ; pauseMs = Math.min(pauseMs * 2, WAIT_MS_MAX)) {
    let busy = false;
    for (const address of addresses) {
      deadline.signal?.throwIfAborted();
      const fd = unixSocket();
      const result = connectSocket(fd, address.bytes);
      if (result === 0) return { fd, address, peer: checkOwner(fd, address, owner) };
      closeDescriptor(fd);
      // A full backlog is EAGAIN, and poll does not wait for it.
      if (result === -EAGAIN || result === -EINPROGRESS || result === -EINTR) busy = true;
      else if (result !== -ECONNREFUSED && result !== -ENOENT) throw cannotReach(result, address);
    }
    if (!busy && !wait) {
      throw new UkshmError(
        'ERR_UKSHM_NO_LISTENER',
        `nobody listens at '${addresses[0]?.name}': start the listener first, or connect with ` +
          '{ wait: true }',
      );
    }
    if (busy && nowMs() - start > deadline.timeoutMs) {
      throw new UkshmError('ERR_UKSHM_TIMEOUT', `${deadline.what}: too many connect at once`);
    }
    await pause(pauseMs, deadline.signal);
  }
}

function cannotReach(result: number, address: Address): UkshmError {
  if (result === -EACCES || result === -EPERM) {
    return new SyscallError('connect', result, `'${address.name}'`, 'ERR_UKSHM_ACCESS_DENIED');
  }
  return new SyscallError('connect', result, `'${address.name}'`);
}

/** Names are first come, first served: nothing is sent before the kernel says whose this one is. */
function checkOwner(fd: number, address: Address, owner: Access): Credentials {
  try {
    const peer = peerCredentials(fd);
    if (admits(owner, peer)) return peer;
    throw new UkshmError(
      'ERR_UKSHM_WRONG_OWNER',
      `'${address.name}' is held by ${describe(peer)}, who is not the owner expected: choose ` +
        "another name, or name that owner in connect()'s 'owner'",
    );
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = afterAlive(ms, () => {
      signal?.removeEventListener('abort', aborted);
      resolve();
    });
    signal?.addEventListener('abort', aborted, { once: true });
  });
}

/** A check of a foreign descriptor may hang in the thread pool: then this side goes on without. */
function inTime<T>(work: Promise<T>, deadline: Deadline): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const cancel = afterAlive(deadline.timeoutMs, () => {
      reject(peerMisbehaved('the descriptor that it passed hangs whoever touches it'));
    });
    work.then(resolve, reject).finally(cancel);
  });
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
  await inTime(checkOutbox(theirs, out, huge, true), deadline);
  await inTime(checkOutbox(ours, back, huge, false), deadline);
  const own = await mapOwn(ours, back, huge, name);
  try {
    const other = await mapPeer(theirs, out, huge, name, describe(peer));
    return { welcome, ownFd: ours, own, other };
  } catch (error) {
    own.close();
    throw error;
  }
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
    importer: new Importer((frame) => importRegion(frame, 'same-user')),
    onEnd: () => {
      options.forwardVia?.exports.delete(key);
      closeAll(ownFd);
    },
  });
}
