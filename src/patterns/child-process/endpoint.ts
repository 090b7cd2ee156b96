// One end of a forked child's IPC pipe: Node's `send` and 'message' with shared memory behind them.
//
// Node's pipe carries every message, in its order, with its handles, callbacks and errors. Where
// there is a channel beside it, a large part of a message is copied into shared memory first, and a
// marker (or, in mode 'json', a placeholder) is serialised in its place; the receiver puts the part
// back before its program sees the message. Loads no addon.
import { peerMisbehaved, UkshmError } from '../../core/errors.js';
import { warn } from '../../sys/clock.js';
import { type IpcHooks, ipcHooks, type Outgoing } from '../../sys/ipc-hooks.js';
import { decodeMarker, encodeMarker, KIND_BODY, kindOf, viewOf } from './marker.js';
import { numbersOf, placeholdersIn, placeholderText } from './numbers.js';
import type { PartReceiver } from './part-receiver.js';
import type { PartSender } from './part-sender.js';

/** From this length on a part goes through shared memory. */
export const PART_BYTES_MIN = 32768;
/** From this length on what is left of a message (strings, ArrayBuffers, many small parts) does. */
export const BODY_BYTES_MIN = 65536;
/** Node keeps messages with such a `cmd` from the program. */
export const CONTROL_COMMAND = 'NODE_UKSHM';
/** More is not remembered of what the other end says before it is asked. */
const SAID_MAX = 16;
/** So many values of a received message are looked at for a large Buffer, in mode 'json'. */
const SEARCH_VALUES_MAX = 64;

/** Node's `send`, of a ChildProcess or of `process`. */
export type Send = (this: unknown, ...args: unknown[]) => boolean;

/** A ChildProcess, or `process`. */
export interface Target {
  readonly connected: boolean;
  disconnect(): void;
  /** With `Endpoint.onEvent` in front of it. */
  emit(event: string, ...args: unknown[]): boolean;
  listenerCount(event: string): number;
}

/** What the two ends say to each other through Node's pipe: see meet.ts. */
export interface Control {
  readonly cmd: typeof CONTROL_COMMAND;
  readonly [name: string]: unknown;
}

/** What an end asks of the side that it belongs to. */
export interface EndpointEvents {
  /** A large part was sent in Node's own way, because there is no channel for it. */
  onLargeSent?(): void;
  /** A large part has come in Node's own way. */
  onLargeReceived?(): void;
  /** What this end does not know itself was said. */
  onControl(message: Control): void;
  onDisconnect(): void;
}

export class Endpoint implements Outgoing {
  /** To be called in place of Node's. */
  readonly send: Send;
  readonly advanced: boolean;
  readonly #target: Target;
  readonly #nodeSend: Send;
  readonly #events: EndpointEvents;
  /** In place from here on: also the first message that comes is to be seen. */
  readonly #hooks: IpcHooks = ipcHooks();
  #sender: PartSender | undefined = undefined;
  #receiver: PartReceiver | undefined = undefined;
  /** What the other end has said of a key, and who waits for that. */
  readonly #said: Map<string, () => void> = new Map();
  #largeSent = false;

  /** @param nodeSend - the target's `send` as Node made it. */
  constructor(target: Target, nodeSend: Send, advanced: boolean, events: EndpointEvents) {
    this.#target = target;
    this.#nodeSend = nodeSend;
    this.#events = events;
    this.advanced = advanced;
    const send = (self: unknown, args: unknown[]): boolean => this.#send(self, args);
    this.send = function (this: unknown, ...args: unknown[]): boolean {
      return send(this, args);
    };
  }

  /**
   * What the target's `emit` asks before it does what it usually does.
   * @returns `false` if nobody is to hear of this event.
   */
  onEvent(event: string, args: readonly unknown[]): boolean {
    if (event === 'message') return this.#onMessage(args[0]);
    if (event === 'internalMessage' && isControl(args[0])) this.#onControl(args[0]);
    else if (event === 'disconnect') this.#events.onDisconnect();
    return true;
  }

  /** From now on large parts go this way. */
  set sender(sender: PartSender) {
    this.#sender?.close();
    this.#sender = sender;
  }

  get sender(): PartSender | undefined {
    return this.#sender;
  }

  /** From now on large parts may come this way. */
  set receiver(receiver: PartReceiver) {
    this.#receiver = receiver;
    if (!this.advanced) return;
    this.#hooks.expect(receiver.key, (marker, decode) => this.#restore(receiver, marker, decode));
  }

  get receiver(): PartReceiver | undefined {
    return this.#receiver;
  }

  /** Whether this Node lets what is received be replaced. */
  get canReceive(): boolean {
    return !this.advanced || this.#hooks.hasRead;
  }

  /** Copies out what has come, so that the other end does not wait for this one. */
  collect(): void {
    try {
      this.#receiver?.collect();
    } catch {
      // A lie: the next marker finds nothing behind it and ends the pipe.
    }
  }

  /** Resolves when the other end has said this of a key. */
  async whenSaid(word: 'probe' | 'ready', key: Uint8Array, signal: AbortSignal): Promise<void> {
    const text = `${word} ${hex(key)}`;
    if (this.#said.delete(text)) return;
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      this.#said.set(text, resolve);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    }).finally(() => this.#said.delete(text));
  }

  /** Says something to the other end; not at all once the pipe is closed. */
  control(content: Readonly<Record<string, unknown>>): void {
    const message = { cmd: CONTROL_COMMAND, ...content };
    const send = (): void => {
      const options = { swallowErrors: true };
      Reflect.apply(this.#nodeSend, this.#target, [message, undefined, options, () => {}]);
    };
    if (this.#target.connected) send();
  }

  /** A key as it is sent in this mode. */
  keyToSend(key: Uint8Array): unknown {
    return this.advanced ? key : hex(key);
  }

  view(view: ArrayBufferView): ArrayBufferView {
    const { byteLength } = view;
    if (byteLength < PART_BYTES_MIN) return view;
    const kind = kindOf(view);
    if (kind === undefined) return view;
    const bytes = new Uint8Array(view.buffer, view.byteOffset, byteLength);
    return this.#replace(bytes, kind) ?? view;
  }

  body(bytes: Uint8Array): Uint8Array | undefined {
    // Where a view has found no room, the rest of it is in these bytes, and finds none either.
    if (bytes.length < BODY_BYTES_MIN || this.#sender?.stalled) return undefined;
    return this.#replace(bytes, KIND_BODY);
  }

  buffer(buffer: Uint8Array): string | undefined {
    const { length } = buffer;
    if (length < PART_BYTES_MIN) return undefined;
    const sender = this.#usableSender();
    if (sender === undefined) return undefined;
    const before = sender.part;
    if (sender.put(buffer) === length) return placeholderText(sender.key, sender.part, length);
    sender.dropBehind(before);
    return undefined;
  }

  #send(self: unknown, args: unknown[]): boolean {
    const [message, handle] = args;
    const send = (): boolean => Reflect.apply(this.#nodeSend, self, args);
    if (typeof message !== 'object' || message === null) return send();
    // A message with a handle waits for others, and Node may send it twice.
    if (!this.advanced && typeof handle === 'object' && handle !== null) return send();
    const before = this.#sender?.part ?? 0;
    try {
      return this.advanced ? this.#hooks.advanced(this, send) : this.#hooks.json(this, send);
    } catch (error) {
      this.#sender?.dropBehind(before);
      throw error;
    } finally {
      if (this.#largeSent) {
        this.#largeSent = false;
        this.#events.onLargeSent?.();
      }
    }
  }

  #usableSender(): PartSender | undefined {
    if (this.#sender === undefined) this.#largeSent = true;
    return this.#sender;
  }

  #replace(bytes: Uint8Array, kind: number): Uint8Array | undefined {
    const sender = this.#usableSender();
    const sharedBytes = sender?.put(bytes) ?? 0;
    if (sender === undefined || sharedBytes === 0) return undefined;
    const { key, part } = sender;
    const rest = bytes.subarray(sharedBytes);
    return encodeMarker(key, { kind, part, lengthBytes: bytes.length, sharedBytes, rest });
  }

  #restore(
    receiver: PartReceiver,
    bytes: Uint8Array,
    decode: (bytes: Uint8Array) => object,
  ): object {
    return this.#orEnd(bytes, () => {
      const marker = decodeMarker(bytes);
      const part = receiver.take(marker);
      const value = marker.kind === KIND_BODY ? bodyOf(part, decode) : viewOf(marker.kind, part);
      receiver.forgetUpTo(marker.part);
      return value;
    });
  }

  /** @returns `false` if the message is not to be delivered. */
  #restoreJson(receiver: PartReceiver, message: unknown): boolean {
    return this.#orEnd(false, () => {
      if (!receiver.collect()) return true;
      for (const { part, lengthBytes, buffer } of placeholdersIn(message, receiver.key)) {
        const rest = new Uint8Array(0);
        const bytes = receiver.take({ part, lengthBytes, sharedBytes: lengthBytes, rest });
        receiver.forgetUpTo(part);
        buffer.data = numbersOf(bytes);
      }
      return true;
    });
  }

  /** A lie of the other end ends the pipe: the message that it was in is not delivered. */
  #orEnd<T>(otherwise: T, action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof UkshmError)) throw error;
      this.#end(error);
      return otherwise;
    }
  }

  #end(error: UkshmError): void {
    const target = this.#target;
    this.close();
    // At once: Node drops what it reads behind a disconnect, and this message with it.
    if (target.connected) target.disconnect();
    process.nextTick(() => {
      // Where a message was being read, Node waits for one more event before it disconnects.
      target.emit('internalMessage', { cmd: CONTROL_COMMAND });
      if (target.listenerCount('error') > 0) target.emit('error', error);
      else warn(error.message, error.code);
    });
  }

  /** Everything goes Node's own way again. */
  close(): void {
    const receiver = this.#receiver;
    this.#sender?.close();
    this.#sender = undefined;
    this.#receiver = undefined;
    if (receiver === undefined) return;
    this.#hooks.forget(receiver.key);
    receiver.close();
  }

  #onControl(message: Control): void {
    if (message.probe !== undefined) this.#onSaid('probe', message.probe);
    else if (message.ready !== undefined) this.#onSaid('ready', message.ready);
    else this.#events.onControl(message);
  }

  #onSaid(word: string, key: unknown): void {
    const text = `${word} ${hex(keyReceived(key))}`;
    const resolve = this.#said.get(text);
    if (resolve !== undefined) resolve();
    else if (this.#said.size < SAID_MAX) this.#said.set(text, () => {});
  }

  /** @returns `false` if the message is not to be delivered. */
  #onMessage(message: unknown): boolean {
    const receiver = this.#receiver;
    if (receiver !== undefined) return this.advanced || this.#restoreJson(receiver, message);
    if (this.#events.onLargeReceived === undefined) return true;
    const large = this.advanced
      ? this.#hooks.takeLargestSeen() >= PART_BYTES_MIN
      : hasLargeBuffer(message);
    if (large) this.#events.onLargeReceived();
    return true;
  }
}

/** A message that was a part as a whole. @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`. */
function bodyOf(part: Uint8Array, decode: (bytes: Uint8Array) => unknown): object {
  let value: unknown;
  try {
    value = decode(part);
  } catch (error) {
    throw peerMisbehaved(`a message of ${part.length} bytes cannot be read: ${error}`);
  }
  if (typeof value === 'object' && value !== null) return value;
  throw peerMisbehaved(`a message of ${part.length} bytes that holds no object`);
}

/** A key as `keyToSend` made it; of no bytes, where it is none. */
export function keyReceived(key: unknown): Uint8Array {
  if (key instanceof Uint8Array) return new Uint8Array(key);
  return Buffer.from(typeof key === 'string' ? key : '', 'hex');
}

function hex(key: Uint8Array): string {
  return Buffer.from(key).toString('hex');
}

function isControl(message: unknown): message is Control {
  return (message as Control | null)?.cmd === CONTROL_COMMAND;
}

/** Whether the numbers of a large Buffer are soon found in what JSON.parse made. */
function hasLargeBuffer(message: unknown): boolean {
  const open: unknown[] = [message];
  for (let i = 0; i < open.length; i++) {
    const value = open[i];
    if (typeof value !== 'object' || value === null) continue;
    const { type, data } = value as { type?: unknown; data?: unknown };
    if (type === 'Buffer' && Array.isArray(data)) {
      if (data.length >= PART_BYTES_MIN) return true;
    } else if (!Array.isArray(value) || value.length < SEARCH_VALUES_MAX) {
      for (const key in value) open.push((value as Record<string, unknown>)[key]);
      if (open.length > SEARCH_VALUES_MAX) open.length = SEARCH_VALUES_MAX;
    }
  }
  return false;
}
