// How one joins what a listener offers beside plain channels: a topic, or a table of values.
//
//     connector → listener   type 1: JSON, what it wants, as its first message
//     listener → connector   type 1: the answer; then messages of type 0
//                            type 2: JSON, the end: a refusal, or why no more will come
//
// Used by topic/ and latest/, on both sides.
import type { Channel } from '../channel/channel.js';
import { peerClosed } from '../channel/ends.js';
import type { ForwardTarget } from '../channel/forward.js';
import type { Access } from '../channel/meeting/access.js';
import { connect } from '../channel/meeting/connector.js';
import { MEETING_TIMEOUT_MS } from '../channel/meeting/meeting.js';
import type { Message } from '../channel/message.js';
import { type ErrorCode, peerMisbehaved, UkshmError } from '../core/errors.js';
import { RING_BYTES_MIN } from '../memory/outbox-layout.js';
import { after } from '../sys/clock.js';

/** What was joined for. */
export const TYPE_DATA = 0;
/** The first message of either side. */
export const TYPE_JOIN = 1;
/** The last message of the listener's side. */
export const TYPE_END = 2;

/** A request or an answer is at most this long. */
const NOTE_BYTES_MAX = 4096;
const WORDS_MAX = 500;
/** How long one who is refused may take to read why. */
const REFUSED_MS = 1000;

/** Codes with which the other side may end a joined channel. */
const END_CODES: readonly ErrorCode[] = [
  'ERR_UKSHM_CANNOT_FORWARD',
  'ERR_UKSHM_INVALID_ARGUMENT',
  'ERR_UKSHM_LIMIT',
  'ERR_UKSHM_MAY_NOT_BLOCK',
  'ERR_UKSHM_NOT_OFFERED',
  'ERR_UKSHM_NO_MEMORY',
  'ERR_UKSHM_TIMEOUT',
  'ERR_UKSHM_TOO_SLOW',
];

/** How to reach what another process offers. */
export interface JoinOptions {
  /** To whom it must belong; checked before anything is sent. Default `'same-user'`. */
  readonly owner?: Access;
  /** Wait until it is there, instead of `ERR_UKSHM_NO_LISTENER`. Default false. */
  readonly wait?: boolean;
  /** Ends the wait until it is joined. */
  readonly signal?: AbortSignal;
  /** How long the other side may take to answer. Default 5000. */
  readonly timeoutMs?: number;
  /** How long to look on before sleeping, in µs, 0 to 10 000; adaptive. Default 20. */
  readonly spinMicros?: number;
}

/** A JSON object that a peer sent. */
export type Note = Readonly<Record<string, unknown>>;

/** A channel whose listener has answered our request. */
export interface Joined {
  readonly channel: Channel;
  /** Of type 1; release it. */
  readonly answer: Message;
}

/** Connects to `name` and asks for something. @throws as `connect`, and what the answer says. */
export async function join(name: string, request: Note, options: JoinOptions): Promise<Joined> {
  const { timeoutMs = MEETING_TIMEOUT_MS, signal } = options;
  const small = { sendRingBytes: RING_BYTES_MIN, sendArenaBytes: 0, receiveArenaBytes: 0 };
  const channel = await connect(name, { ...options, ...small });
  try {
    await channel.send(encodeNote(request), { type: TYPE_JOIN, signal });
    const answer = await firstMessage(channel, timeoutMs, signal);
    const { type, isRequest } = answer;
    if (type === TYPE_JOIN && !isRequest) return { channel, answer };
    if (type !== TYPE_END || isRequest) {
      throw misbehaves(channel, isRequest ? 'a request' : `a first message of type ${type}`);
    }
    const error = endError(channel, readNote(channel, answer));
    throw error ?? peerClosed(channel.peer, name);
  } catch (error) {
    await endAtOnce(channel);
    throw error;
  }
}

/** The peer's first message. @throws UkshmError `ERR_UKSHM_TIMEOUT`; as `Channel.readable`. */
async function firstMessage(
  channel: Channel,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Message> {
  const limit = new TimeLimit(timeoutMs, signal);
  try {
    let first: Message | undefined;
    while (first === undefined) {
      if (!(await channel.readable({ signal: limit.signal }))) {
        throw peerClosed(channel.peer, channel.name);
      }
      channel.drain((message) => {
        first = message.take();
      }, 1);
    }
    return first;
  } catch (error) {
    if (!limit.expired) throw error;
    const text = `the other side of '${channel.name}' said nothing for ${timeoutMs} ms`;
    throw new UkshmError('ERR_UKSHM_TIMEOUT', text);
  } finally {
    limit.end();
  }
}

/** What one who joins asks for: its first message. @throws as `firstMessage`, `readNote`. */
export async function readWish(channel: Channel): Promise<Note> {
  const message = await firstMessage(channel, MEETING_TIMEOUT_MS);
  if (message.type === TYPE_JOIN && !message.isRequest) return readNote(channel, message);
  message.release();
  throw misbehaves(channel, `a first message of type ${message.type}`);
}

/** Reads a JSON object out of a message and releases it; anything else ends the channel. */
export function readNote(channel: Channel, message: Message): Note {
  try {
    if (message.lengthBytes <= NOTE_BYTES_MAX) {
      const note = message.json();
      if (typeof note === 'object' && note !== null && !Array.isArray(note)) return note as Note;
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  } finally {
    message.release();
  }
  throw misbehaves(channel, `a message of type ${message.type} that is no JSON object`);
}

/** A JSON object as bytes. */
export function encodeNote(note: Note): Uint8Array {
  return Buffer.from(JSON.stringify(note));
}

/** A u32 of a note; anything else ends the channel. */
export function noteNumber(channel: Channel, note: Note, key: string): number {
  const value = note[key];
  if (typeof value === 'number' && value >>> 0 === value) return value;
  throw misbehaves(channel, `'${key}' is not a whole number from 0 to 4294967295`);
}

/** What a peer's last message says went wrong; `undefined` if nothing did. */
export function endError(channel: Channel, note: Note): UkshmError | undefined {
  if (note.code === undefined) return undefined;
  const code = END_CODES.find((known) => known === note.code);
  if (code === undefined) throw misbehaves(channel, 'an end for a reason that does not exist');
  const words = typeof note.message === 'string' ? note.message.slice(0, WORDS_MAX) : '';
  return new UkshmError(code, `'${channel.name}': ${words}`);
}

/** Ends a channel whose peer does not keep to what stands above. @returns the error to throw. */
export function misbehaves(channel: Channel, what: string): unknown {
  try {
    return channel.target.guard(() => {
      throw peerMisbehaved(what);
    });
  } catch (error) {
    return error;
  }
}

/** Ends a channel in which `error` was found, if it is a lie of the peer's. Never throws. */
export function endIfLie(target: ForwardTarget, error: unknown): void {
  try {
    target.guard(() => {
      throw error;
    });
  } catch {
    // Of a channel that has ended, or was ended just now.
  }
}

/** Tells one who joins why not, if it is for it to know, and ends the channel. Never rejects. */
export async function refuse(channel: Channel, error: unknown): Promise<void> {
  if (!(error instanceof UkshmError) || !END_CODES.includes(error.code)) return endAtOnce(channel);
  const { code, message } = error;
  const limit = new TimeLimit(REFUSED_MS);
  try {
    channel.trySend(encodeNote({ code, message }), { type: TYPE_END });
    await channel.close({ signal: limit.signal });
  } catch {
    // It went before it was told.
  } finally {
    limit.end();
  }
}

/** Ends a channel without waiting for its peer. Never rejects. */
export async function endAtOnce(channel: Channel): Promise<void> {
  await channel.close({ signal: AbortSignal.abort() }).catch(() => {});
}

/** A signal that is aborted after a time, or when another one is. */
export class TimeLimit {
  readonly #controller: AbortController = new AbortController();
  readonly #cancel: () => void;
  readonly #outer: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #expired = false;

  constructor(timeoutMs: number, outer?: AbortSignal) {
    this.#outer = outer;
    this.#onAbort = () => this.#controller.abort(outer?.reason);
    this.#cancel = after(timeoutMs, () => {
      this.#expired = true;
      this.#controller.abort();
    });
    if (outer?.aborted) this.#onAbort();
    else outer?.addEventListener('abort', this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether the time was over first. */
  get expired(): boolean {
    return this.#expired;
  }

  /** Call when it is needed no more. */
  end(): void {
    this.#cancel();
    this.#outer?.removeEventListener('abort', this.#onAbort);
  }
}
