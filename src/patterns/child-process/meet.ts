// How the two ends come to a channel beside Node's pipe, one for each direction that carries large
// parts. Loaded when the first of them was seen.
//
//     parent                                        child
//     listens at a name made by chance
//     { invite: key, name, uid, down } ──────────▶  connects
//     accepts this process only          ◀────────  or { failed: key }
//     the sender     { probe: key } ──▶ the receiver, through the hooks that put parts back
//                    ◀── { ready: key }; from then on parts are sent
//
// This is said through Node's pipe; a child that is not ours does not answer.
import type { Channel } from '../../channel/channel.js';
import { connect } from '../../channel/meeting/connector.js';
import { listen } from '../../channel/meeting/listener.js';
import { UkshmError } from '../../core/errors.js';
import { freshBytes, keepFreed } from '../../memory/fresh-bytes.js';
import { random } from '../../sys/clock.js';
import { MARKER_KEY_BYTES } from '../../sys/ipc-hooks.js';
import { ownUid } from '../../sys/process.js';
import type { Endpoint } from './endpoint.js';
import { PartReceiver } from './part-receiver.js';
import { PartSender } from './part-sender.js';

/** What may be under way in one direction before the receiver has copied it out. */
const ARENA_BYTES = 16777216;
const RING_BYTES = 65536;
/** Whoever is too busy for so long is asked again when the next large part comes. */
const MEETING_TIMEOUT_MS = 1000;
const END = { inFlightBytes: ARENA_BYTES, spinMicros: 0 };

/** What the parent asks of its child. */
export interface Invitation {
  readonly key: Uint8Array;
  readonly name: string;
  /** The parent's user: a child may have another. */
  readonly uid: number;
  /** Whether the parent sends and the child receives. */
  readonly down: boolean;
}

/** What an invitation needs of the parent. */
export interface Meeting {
  readonly endpoint: Endpoint;
  readonly childPid: number;
  readonly down: boolean;
  /** Aborted when the pipe closes, or the child cannot come. */
  readonly signal: AbortSignal;
}

/** The parent's side: large parts of one direction go through shared memory when it resolves. */
export async function invite(meeting: Meeting): Promise<void> {
  const { endpoint, childPid, down, signal } = meeting;
  const key = random(MARKER_KEY_BYTES);
  const name = `fork-${Buffer.from(random(16)).toString('hex')}`;
  const listener = await listen(name, {
    ...END,
    access: { pids: [childPid] },
    ringBytes: RING_BYTES,
    arenaBytes: ARENA_BYTES,
    maxChannels: 1,
    handshakeTimeoutMs: MEETING_TIMEOUT_MS,
    signal,
  });
  listener.unref();
  let channel: Channel;
  try {
    endpoint.control({ invite: endpoint.keyToSend(key), name, uid: ownUid(), down });
    channel = await listener.accept({ signal });
  } finally {
    await listener.close();
  }
  await (down ? send : receive)(endpoint, channel.unref(), key, signal);
}

/** The child's side. */
export async function join(
  endpoint: Endpoint,
  { key, name, uid, down }: Invitation,
  signal: AbortSignal,
): Promise<void> {
  const channel = await connect(name, {
    ...END,
    owner: { uids: [uid] },
    timeoutMs: MEETING_TIMEOUT_MS,
    signal,
    ...(down ? { sendArenaBytes: 0 } : { receiveArenaBytes: 0 }),
  });
  await (down ? receive : send)(endpoint, channel.unref(), key, signal);
}

async function send(
  endpoint: Endpoint,
  channel: Channel,
  key: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const sender = new PartSender(channel, key, () => endpoint.collect());
  try {
    endpoint.control({ probe: endpoint.keyToSend(key) });
    await endpoint.whenSaid('ready', key, signal);
    endpoint.sender = sender;
  } catch (error) {
    sender.close();
    throw error;
  }
}

async function receive(
  endpoint: Endpoint,
  channel: Channel,
  key: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  keepFreed();
  const receiver = new PartReceiver(channel, key, freshBytes);
  try {
    await endpoint.whenSaid('probe', key, signal);
    if (!endpoint.canReceive) throw new UkshmError('ERR_UKSHM_UNSUPPORTED', 'not in this Node');
    endpoint.receiver = receiver;
    endpoint.control({ ready: endpoint.keyToSend(key) });
  } catch (error) {
    receiver.close();
    throw error;
  }
}
