// How the two ends come to a channel beside Node's pipe, one for each direction that carries large
// parts. Loaded when the first of them was seen.
//
//     parent                                        child
//     listens at a name made by chance
//     { invite: key, name, uid, down, arenaBytes }
//                                        ────────▶  connects
//     accepts this process only          ◀────────  or { failed: key }
//                                        ◀────────  { wish: lengthBytes }: to be invited to send
//     the receiver says { ready: key }; from then on the sender sends parts
//
// This is said through Node's pipe; a child that is not ours does not answer.
import type { Channel } from '../../channel/channel.js';
import { connect } from '../../channel/meeting/connector.js';
import { listen } from '../../channel/meeting/listener.js';
import { ceilLog2 } from '../../core/u32.js';
import { freshBytes, keepFreed } from '../../memory/fresh-bytes.js';
import { random } from '../../sys/clock.js';
import { ownUid } from '../../sys/process.js';
import type { Endpoint } from './endpoint.js';
import { KEY_BYTES } from './marker.js';
import { PartReceiver } from './part-receiver.js';
import { PartSender } from './part-sender.js';

/** What may be under way in one direction before the receiver has copied it out. */
const ARENA_BYTES_MIN = 16777216;
const ARENA_BYTES_MAX = 268435456;
/** A part needs a little more than its length. */
const ARENA_SLACK = 1.03;
const RING_BYTES = 65536;
/** Either side may be busy for long: Node takes a quarter of a minute for 64 MB in mode json. */
const MEETING_TIMEOUT_MS = 60_000;
/** What the parent asks of its child. */
export interface Invitation {
  readonly key: Uint8Array;
  readonly name: string;
  /** The parent's user: a child may have another. */
  readonly uid: number;
  /** Whether the parent sends and the child receives. */
  readonly down: boolean;
  readonly arenaBytes: number;
}

/** What an invitation needs of the parent. */
export interface Meeting {
  readonly endpoint: Endpoint;
  readonly childPid: number;
  readonly down: boolean;
  /** How long the large parts of a message are, as far as was seen. */
  readonly lengthBytes: number;
  /** Aborted when the pipe closes, or the child cannot come. */
  readonly signal: AbortSignal;
}

/** The parent's side: large parts of one direction go through shared memory when it resolves. */
export async function invite(meeting: Meeting): Promise<void> {
  const { endpoint, childPid, down, signal } = meeting;
  const arenaBytes = arenaBytesFor(meeting.lengthBytes);
  const key = random(KEY_BYTES);
  const name = `fork-${Buffer.from(random(16)).toString('hex')}`;
  const listener = await listen(name, {
    access: { pids: [childPid] },
    ringBytes: RING_BYTES,
    arenaBytes,
    maxArenaBytes: arenaBytes,
    inFlightBytes: arenaBytes,
    spinMicros: 0,
    maxChannels: 1,
    handshakeTimeoutMs: MEETING_TIMEOUT_MS,
    signal,
  });
  listener.unref();
  let channel: Channel;
  try {
    endpoint.control({ invite: endpoint.keyToSend(key), name, uid: ownUid(), down, arenaBytes });
    channel = await listener.accept({ signal });
  } finally {
    await listener.close();
  }
  await complete(endpoint, channel.unref(), down, key, arenaBytes, signal);
}

/** The child's side. */
export async function join(
  endpoint: Endpoint,
  { key, name, uid, down, arenaBytes }: Invitation,
  signal: AbortSignal,
): Promise<void> {
  const channel = await connect(name, {
    inFlightBytes: arenaBytes,
    spinMicros: 0,
    owner: { uids: [uid] },
    timeoutMs: MEETING_TIMEOUT_MS,
    signal,
    ...(down ? { sendArenaBytes: 0 } : { receiveArenaBytes: 0 }),
  });
  await complete(endpoint, channel.unref(), !down, key, arenaBytes, signal);
}

function arenaBytesFor(lengthBytes: number): number {
  const wanted = 2 ** ceilLog2(Math.ceil(lengthBytes * ARENA_SLACK));
  return Math.min(Math.max(wanted, ARENA_BYTES_MIN), ARENA_BYTES_MAX);
}

/** From here on both sides do the same. */
async function complete(
  endpoint: Endpoint,
  channel: Channel,
  sends: boolean,
  key: Uint8Array,
  arenaBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const capacityBytes = arenaBytes < ARENA_BYTES_MAX ? arenaBytes / ARENA_SLACK : Infinity;
  if (sends) {
    const sender = new PartSender(channel, key, capacityBytes, () => endpoint.collect());
    try {
      await endpoint.whenReady(key, signal);
      endpoint.sendBy(sender);
    } catch (error) {
      sender.close();
      throw error;
    }
  } else if (signal.aborted) await channel.close({ signal });
  else {
    keepFreed();
    endpoint.receiveBy(new PartReceiver(channel, key, capacityBytes, freshBytes));
    endpoint.control({ ready: endpoint.keyToSend(key) });
  }
}
