// What one asks of a listener without becoming its peer: an outbox to map, or how it is.
import { peerMisbehaved } from '../../core/errors.js';
import type { Mapping } from '../../memory/mapping.js';
import { outboxLayout } from '../../memory/outbox-layout.js';
import { afterAlive } from '../../sys/clock.js';
import { closeDescriptor, closeForeign } from '../../sys/memory.js';
import { describe } from '../ends.js';
import { type ImportFrame, TOKEN_BYTES } from '../frames.js';
import { unlessAborted } from '../waiters.js';
import type { Access } from './access.js';
import type { Address } from './address.js';
import { type Deadline, readExactly, readWithDescriptors, writeHello } from './handshake-io.js';
import { MEETING_TIMEOUT_MS, plausibleSizes } from './meeting.js';
import { checkOutbox, mapPeer } from './outbox.js';
import { reach } from './reach.js';
import {
  decodeWelcome,
  encodeHello,
  FLAG_HUGE_PAGES,
  type Hello,
  type Kind,
  WELCOME_BYTES,
} from './wire.js';

/** Maps the outbox named by `frame` through its owner's listener. @throws as `connect`. */
export async function importRegion(frame: ImportFrame, owner: Access): Promise<Mapping> {
  const deadline: Deadline = { what: 'importing a region', timeoutMs: MEETING_TIMEOUT_MS };
  const address = { name: 'a forwarded region', abstract: true, bytes: frame.address };
  const { fd, peer } = await reach([address], owner, false, deadline);
  const fds = new Int32Array(1).fill(-1);
  try {
    await writeHello(fd, encodeHello(plainHello('import', frame.token)), deadline);
    const bytes = await readWithDescriptors(fd, WELCOME_BYTES, fds, deadline);
    const welcome = decodeWelcome(bytes, address.name);
    if (!plausibleSizes(welcome.ringBytes, welcome.arenaBytes)) {
      throw peerMisbehaved('its welcome names impossible sizes');
    }
    const layout = outboxLayout(welcome.ringBytes, welcome.arenaBytes);
    const huge = (welcome.flags & FLAG_HUGE_PAGES) !== 0;
    const outbox = fds[0] as number;
    await inTime(checkOutbox(outbox, layout, huge, true), deadline);
    const mapping = await mapPeer(outbox, layout, huge, 'forwarded', describe(peer));
    closeDescriptor(outbox);
    fds[0] = -1;
    return mapping;
  } finally {
    closeDescriptor(fd);
    closeForeign(fds);
  }
}

/** What a listener tells of itself, as it came. For directory.ts. */
export async function askInfo(address: Address, timeoutMs: number): Promise<string> {
  const deadline: Deadline = { what: `asking '${address.name}'`, timeoutMs };
  const { fd } = await reach([address], () => true, false, deadline);
  try {
    const hello = plainHello('info', new Uint8Array(TOKEN_BYTES));
    await writeHello(fd, encodeHello(hello), deadline);
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

/** A check of a foreign descriptor may hang in the thread pool: then this side goes on without. */
export function inTime<T>(work: Promise<T>, deadline: Deadline): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const cancel = afterAlive(deadline.timeoutMs, () => {
      reject(peerMisbehaved('the descriptor that it passed hangs whoever touches it'));
    });
    unlessAborted(work, deadline.signal).then(resolve, reject).finally(cancel);
  });
}
