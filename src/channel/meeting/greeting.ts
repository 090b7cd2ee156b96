// The listener's side of one meeting, from an accepted socket to a channel.
import { F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK } from '../../abi/fcntl.js';
import { peerMisbehaved, SyscallError, UkshmError } from '../../core/errors.js';
import type { Mapping } from '../../memory/mapping.js';
import { type OutboxLayout, outboxLayout } from '../../memory/outbox-layout.js';
import type { Wish } from '../../memory/region.js';
import { random } from '../../sys/clock.js';
import { closeDescriptor, getSeals } from '../../sys/memory.js';
import { memlockLimitBytes } from '../../sys/process.js';
import type { Credentials } from '../../sys/socket.js';
import { Channel } from '../channel.js';
import { describe } from '../ends.js';
import { Importer, Origin } from '../forward.js';
import { TOKEN_BYTES, tokenKey } from '../frames.js';
import type { Access } from './access.js';
import type { Address } from './address.js';
import { type Deadline, readExactly, writeAll } from './handshake-io.js';
import { both, closeAll, type EndSettings, plausibleSizes, watchPeer } from './meeting.js';
import { createOutbox, mapOwn, mapPeer, outboxBytes, sealSize } from './outbox.js';
import { importRegion } from './visits.js';
import {
  ACK_BYTES,
  DEFAULT_SIZE,
  decodeHello,
  encodeRefusal,
  encodeWelcome,
  FLAG_CANNOT_FENCE,
  FLAG_HUGE_PAGES,
  HELLO_BYTES,
  type Hello,
  isAck,
  type Refusal,
} from './wire.js';

const NO_DESCRIPTORS = new Int32Array(0);

/** An outbox that others may import, by its token. */
export interface ExportedOutbox {
  readonly fd: number;
  readonly layout: OutboxLayout;
  readonly hugePages: boolean;
}

/** What the listener's meetings share. */
export interface Greeting {
  readonly name: string;
  readonly address: Address;
  readonly access: Access;
  readonly ringBytes: number;
  readonly arenaBytes: number;
  readonly maxArenaBytes: number;
  readonly maxBytesPerUser: number;
  readonly maxChannels: number;
  readonly timeoutMs: number;
  readonly wired: Wish;
  readonly hugePages: Wish;
  readonly settings: EndSettings;
  /** Open channels and their bytes. */
  readonly channels: Map<Channel, number>;
  readonly exports: Map<string, ExportedOutbox>;
  /** What is promised, meetings under way included: channels, and bytes to each user. */
  readonly promised: { channels: number };
  readonly bytesByUser: Map<number, number>;
  readonly info: () => object;
}

/**
 * Meets one connector. The socket is taken over.
 * @returns the channel; `undefined` where the connector wanted something else or was refused.
 */
export async function greet(
  greeting: Greeting,
  fd: number,
  peer: Credentials,
  refusal: Refusal | undefined,
): Promise<Channel | undefined> {
  const deadline: Deadline = {
    what: `meeting ${describe(peer)} at '${greeting.name}'`,
    timeoutMs: greeting.timeoutMs,
  };
  try {
    if (refusal !== undefined) return await refuse(fd, refusal, deadline);
    const hello = decodeHello(await readExactly(fd, HELLO_BYTES, deadline));
    if (typeof hello === 'string') return await refuse(fd, hello, deadline);
    if (hello.kind === 'info') return await tell(greeting, fd, deadline);
    if (hello.kind === 'import') return await share(greeting, fd, hello, deadline);
    return await open(greeting, fd, peer, hello, deadline);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

async function refuse(fd: number, refusal: Refusal, deadline: Deadline): Promise<undefined> {
  await writeAll(fd, encodeRefusal(refusal), NO_DESCRIPTORS, deadline);
  closeDescriptor(fd);
}

/** `ukshm ls` asks. */
async function tell(greeting: Greeting, fd: number, deadline: Deadline): Promise<undefined> {
  const text = Buffer.from(JSON.stringify(greeting.info()));
  const sizes = { ringBytes: text.length, arenaBytes: 0, backRingBytes: 0, backArenaBytes: 0 };
  const welcome = encodeWelcome({ flags: 0, ...sizes, token: new Uint8Array(TOKEN_BYTES) });
  await writeAll(fd, Buffer.concat([welcome, text]), NO_DESCRIPTORS, deadline);
  closeDescriptor(fd);
}

/** A third process maps an outbox from which it is being forwarded messages. */
async function share(
  greeting: Greeting,
  fd: number,
  hello: Hello,
  deadline: Deadline,
): Promise<undefined> {
  const outbox = greeting.exports.get(tokenKey(hello.token));
  if (outbox === undefined) return refuse(fd, 'unknown-token', deadline);
  const { ringBytes, arenaBytes } = outbox.layout;
  const flags = outbox.hugePages ? FLAG_HUGE_PAGES : 0;
  const sizes = { ringBytes, arenaBytes, backRingBytes: 0, backArenaBytes: 0 };
  const welcome = encodeWelcome({ flags, ...sizes, token: hello.token });
  await writeAll(fd, welcome, Int32Array.of(outbox.fd), deadline);
  closeDescriptor(fd);
}

interface Sizes {
  readonly out: OutboxLayout;
  readonly back: OutboxLayout;
}

function agree(greeting: Greeting, hello: Hello): Sizes | Refusal {
  const pick = (asked: number, usual: number): number => (asked === DEFAULT_SIZE ? usual : asked);
  const ring = greeting.ringBytes;
  const arena = greeting.arenaBytes;
  const outRing = pick(hello.receiveRingBytes, ring);
  const outArena = pick(hello.receiveArenaBytes, arena);
  const backRing = pick(hello.sendRingBytes, ring);
  const backArena = pick(hello.sendArenaBytes, arena);
  if (!plausibleSizes(outRing, outArena) || !plausibleSizes(backRing, backArena)) {
    return 'malformed';
  }
  const most = greeting.maxArenaBytes;
  if (Math.max(outArena, backArena) > most || Math.max(outRing, backRing) > Math.max(most, ring)) {
    return 'limit';
  }
  return { out: outboxLayout(outRing, outArena), back: outboxLayout(backRing, backArena) };
}

async function open(
  greeting: Greeting,
  fd: number,
  peer: Credentials,
  hello: Hello,
  deadline: Deadline,
): Promise<Channel | undefined> {
  const sizes = agree(greeting, hello);
  if (typeof sizes === 'string') return refuse(fd, sizes, deadline);
  const bytes = sizes.out.totalBytes + sizes.back.totalBytes;
  const promised = greeting.bytesByUser.get(peer.uid) ?? 0;
  if (greeting.promised.channels >= greeting.maxChannels) return refuse(fd, 'limit', deadline);
  if (promised + bytes > greeting.maxBytesPerUser) return refuse(fd, 'limit', deadline);
  const account = (delta: number): void => {
    greeting.promised.channels += Math.sign(delta);
    const total = (greeting.bytesByUser.get(peer.uid) ?? 0) + delta;
    if (total > 0) greeting.bytesByUser.set(peer.uid, total);
    else greeting.bytesByUser.delete(peer.uid);
  };
  account(bytes);
  try {
    const made = await makeOutboxes(greeting, sizes);
    return await complete(greeting, { fd, peer, hello, deadline }, sizes, made, () =>
      account(-bytes),
    );
  } catch (error) {
    account(-bytes);
    if (error instanceof UkshmError && error.code === 'ERR_UKSHM_NO_MEMORY') {
      return refuse(fd, 'no-memory', deadline);
    }
    throw error;
  }
}

interface Outboxes {
  readonly outFd: number;
  readonly backFd: number;
  readonly hugePages: boolean;
}

async function makeOutboxes(greeting: Greeting, sizes: Sizes): Promise<Outboxes> {
  const hugePages = greeting.hugePages !== false;
  try {
    return await makeBoth(greeting.name, sizes, hugePages);
  } catch (error) {
    if (greeting.hugePages !== 'prefer') throw error;
    return makeBoth(greeting.name, sizes, false);
  }
}

async function makeBoth(name: string, sizes: Sizes, hugePages: boolean): Promise<Outboxes> {
  const [outFd, backFd] = await both(
    [createOutbox(name, sizes.out, hugePages), createOutbox(name, sizes.back, hugePages)],
    closeDescriptor,
  );
  sealSize(backFd);
  return { outFd, backFd, hugePages };
}

interface Meeting {
  readonly fd: number;
  readonly peer: Credentials;
  readonly hello: Hello;
  readonly deadline: Deadline;
}

/** From two fresh outboxes to a channel; on failure nothing of them is left. */
async function complete(
  greeting: Greeting,
  meeting: Meeting,
  sizes: Sizes,
  made: Outboxes,
  onEnd: () => void,
): Promise<Channel> {
  const { fd, peer, hello, deadline } = meeting;
  const { outFd, backFd, hugePages } = made;
  let own: Mapping | undefined;
  let other: Mapping | undefined;
  let pidfd = -1;
  try {
    own = await mapOwn(outFd, sizes.out, hugePages, greeting.name);
    const token = random(TOKEN_BYTES);
    const welcome = encodeWelcome({
      flags: hugePages ? FLAG_HUGE_PAGES : 0,
      ringBytes: sizes.out.ringBytes,
      arenaBytes: sizes.out.arenaBytes,
      backRingBytes: sizes.back.ringBytes,
      backArenaBytes: sizes.back.arenaBytes,
      token,
    });
    await writeAll(fd, welcome, Int32Array.of(outFd, backFd), deadline);
    const ack = await readExactly(fd, ACK_BYTES, deadline);
    if (!isAck(ack)) throw peerMisbehaved('its acknowledgement is none');
    const seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
    if ((getSeals(backFd) & seals) !== seals) throw peerMisbehaved('its outbox is not sealed');
    other = await mapPeer(backFd, sizes.back, hugePages, greeting.name, describe(peer));
    wire(greeting.wired, [own, other]);
    pidfd = watchPeer(fd, peer);
    const key = tokenKey(token);
    greeting.exports.set(key, { fd: outFd, layout: sizes.out, hugePages });
    const importable = hello.importAddress.length > 0;
    const channel: Channel = new Channel({
      name: greeting.name,
      peer,
      fd,
      pidfd,
      own,
      ownLayout: sizes.out,
      other,
      otherLayout: sizes.back,
      ...greeting.settings,
      peerCannotFence: (hello.flags & FLAG_CANNOT_FENCE) !== 0,
      origin: importable ? new Origin(hello.importAddress, peer.uid, hello.token) : undefined,
      importer: new Importer((frame) => importRegion(frame, 'same-user')),
      onEnd: () => {
        greeting.channels.delete(channel);
        greeting.exports.delete(key);
        closeDescriptor(outFd);
        onEnd();
      },
    });
    closeDescriptor(backFd);
    greeting.channels.set(channel, outboxBytes(sizes.out, hugePages) + sizes.back.totalBytes);
    return channel;
  } catch (error) {
    own?.close();
    other?.close();
    closeAll(outFd, backFd, pidfd);
    throw error;
  }
}

function wire(wish: Wish, mappings: readonly Mapping[]): void {
  if (wish === false) return;
  for (const mapping of mappings) {
    const result = mapping.lock();
    if (result >= 0 || wish === 'prefer') continue;
    const hint = `RLIMIT_MEMLOCK is ${memlockLimitBytes()} bytes`;
    throw new SyscallError('mlock', result, hint, 'ERR_UKSHM_MEMLOCK_LIMIT');
  }
}
