// One end of a forked child's IPC pipe: Node's `send` and 'message' with shared memory behind them.
//
// Node's pipe carries every message, in its order, with its handles, callbacks and errors. Where
// there is a channel beside it, the large parts of a message are copied into shared memory first,
// and something small is sent in its place: in mode 'advanced' the message serialised here, with
// markers in place of the parts; in mode 'json' a copy with placeholders in place of numbers. The
// receiver makes the message of it before its program sees it. Loads no addon.
import { peerMisbehaved, UkshmError } from '../../core/errors.js';
import { after, warn } from '../../sys/clock.js';
import { decodeMessage, encodeMessage } from './codec.js';
import { KEY_BYTES } from './marker.js';
import { numbersOf, placeholdersIn, placeholderText, withPlaceholders } from './numbers.js';
import type { PartReceiver } from './part-receiver.js';
import type { PartSender } from './part-sender.js';
import { largeBytesIn, PART_BYTES_MIN } from './search.js';
import { Vigilance } from './vigilance.js';

/** Node keeps messages with such a `cmd` from the program. */
export const CONTROL_COMMAND = 'NODE_UKSHM';
/** Before there is a channel, one of so many received messages is searched. */
const SAMPLE_COUNT = 8;
/** More is not remembered of what the other end says before it is asked. */
const READY_MAX = 16;
/** A channel that carried nothing for so long is given up, with its memory. */
const IDLE_MS = 10_000;
const NOTHING: Uint8Array = new Uint8Array(0);

/** Node's `send`, of a ChildProcess or of `process`. */
export type Send = (
  this: unknown,
  message?: unknown,
  handle?: unknown,
  options?: unknown,
  callback?: unknown,
) => boolean;

/** A ChildProcess, or `process`, with `Endpoint.onEvent` in front of its `emit`. */
export interface Target {
  readonly connected: boolean;
  disconnect(): void;
  emit(event: string, ...args: unknown[]): boolean;
  listenerCount(event: string): number;
}

/** What the two ends say to each other through Node's pipe: see meet.ts. */
export interface Control {
  readonly cmd: typeof CONTROL_COMMAND;
  readonly [name: string]: unknown;
}

/** What an end tells the side that it belongs to. */
export interface EndpointEvents {
  /** Large parts of this length were sent, for which there is no channel, or one too small. */
  onLargeSent(lengthBytes: number): void;
  /** Large parts of this length have come in Node's own way. */
  onLargeReceived(lengthBytes: number): void;
  /** What this end does not know itself was said. */
  onControl(message: Control): void;
  onDisconnect(): void;
}

export class Endpoint {
  /** To be called in place of Node's. */
  readonly send: Send;
  readonly #advanced: boolean;
  readonly #target: Target;
  readonly #nodeSend: Send;
  readonly #events: EndpointEvents;
  readonly #vigilance: Vigilance = new Vigilance();
  #sender: PartSender | undefined = undefined;
  #cancelIdle: () => void = () => {};
  /** By their keys; a message that was sent before another took over may still come. */
  readonly #receivers: Map<string, PartReceiver> = new Map();
  #received = 0;
  /** Nothing that still comes is delivered. */
  #broken = false;
  /** Keys for which the other end is ready, and who waits for that. */
  readonly #ready: Map<string, () => void> = new Map();

  /** @param nodeSend - the target's `send` as Node made it. */
  constructor(target: Target, nodeSend: Send, advanced: boolean, events: EndpointEvents) {
    this.#target = target;
    this.#nodeSend = nodeSend;
    this.#events = events;
    this.#advanced = advanced;
    const endpoint = this;
    this.send = function send(message, handle, options, callback): boolean {
      // (As few steps as can be: this stands before each message, however small.)
      return endpoint.#isUnsearched(message)
        ? endpoint.#sent(nodeSend.call(this, message, handle, options, callback), message)
        : endpoint.#send(this, [message, handle, options, callback]);
    };
  }

  /** From now on large parts go this way. */
  sendBy(sender: PartSender): void {
    this.#sender?.close();
    this.#sender = sender;
    this.#watchIdle(sender);
  }

  /** Large parts may come this way. */
  receiveBy(receiver: PartReceiver): void {
    for (const [key, one] of this.#receivers) if (one.finished) this.#receivers.delete(key);
    this.#receivers.set(hex(receiver.key), receiver);
  }

  /** Large parts up to this length have a way of their own, those sent or those received; 0: none have. */
  roomBytes(sent: boolean): number {
    if (sent) return this.#sender?.capacityBytes ?? 0;
    const open = [...this.#receivers.values()].filter(({ finished }) => !finished);
    return Math.max(0, ...open.map(({ capacityBytes }) => capacityBytes));
  }

  /** Copies out what has come, so that the other end does not wait for this one. */
  collect(): void {
    try {
      for (const receiver of this.#receivers.values()) receiver.collect();
    } catch {
      // A lie: who next asks for a part is told.
    }
  }

  /** Resolves when the other end is ready for what is sent with this key. */
  async whenReady(key: Uint8Array, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const text = hex(key);
    if (this.#ready.delete(text)) return;
    await new Promise<void>((resolve, reject) => {
      this.#ready.set(text, resolve);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    }).finally(() => this.#ready.delete(text));
  }

  /** Says something to the other end; not at all once the pipe is closed. */
  control(content: Readonly<Record<string, unknown>>): void {
    if (!this.#target.connected) return;
    const message = { cmd: CONTROL_COMMAND, ...content };
    const options = { swallowErrors: true };
    Reflect.apply(this.#nodeSend, this.#target, [message, undefined, options, () => {}]);
  }

  /** A key as it is sent in this mode. */
  keyToSend(key: Uint8Array): unknown {
    return this.#advanced ? key : hex(key);
  }

  /** Everything goes Node's own way again. */
  close(): void {
    this.#cancelIdle();
    this.#sender?.close();
    this.#sender = undefined;
    for (const receiver of this.#receivers.values()) receiver.close();
    this.#receivers.clear();
  }

  /**
   * What the target's `emit` asks before it does what it usually does; may put another message into
   * `args`.
   * @returns `false` if nobody is to hear of this event.
   */
  onEvent(event: string, args: unknown[]): boolean {
    if (event === 'message') return this.#onMessage(args);
    if (event === 'internalMessage' && isControl(args[0])) this.#onControl(args[0]);
    else if (event === 'disconnect') this.#events.onDisconnect();
    return true;
  }

  /** Whether a message may go without a search for large parts. */
  #isUnsearched(message: unknown): boolean {
    if (typeof message !== 'object' || message === null) return true;
    return !this.#vigilance.awake && !isLargeBytes(message);
  }

  /** A message went without a search: maybe it is searched now, for the sake of the next. */
  #sent(flows: boolean, message: unknown): boolean {
    if (!this.#vigilance.suspects(flows)) return flows;
    const lengthBytes = this.#largeBytes(message);
    if (lengthBytes > 0) {
      this.#vigilance.searched(true);
      this.#expect(lengthBytes);
    }
    return flows;
  }

  #send(self: unknown, args: Parameters<Send>): boolean {
    const [message] = args as [object];
    const lengthBytes = this.#largeBytes(message);
    this.#vigilance.searched(lengthBytes > 0);
    if (lengthBytes === 0) return Reflect.apply(this.#nodeSend, self, args);
    const sender = this.#sender;
    this.#expect(lengthBytes);
    if (sender === undefined || !this.#target.connected) {
      return Reflect.apply(this.#nodeSend, self, args);
    }
    return this.#sendAround(self, args, message, sender);
  }

  /** Large parts of this length may come again: there shall be room. */
  #expect(lengthBytes: number): void {
    if (lengthBytes > this.roomBytes(true)) this.#events.onLargeSent(lengthBytes);
  }

  #watchIdle(sender: PartSender): void {
    const { part } = sender;
    this.#cancelIdle = after(IDLE_MS, () => {
      if (sender !== this.#sender) return;
      if (sender.part !== part) {
        this.#watchIdle(sender);
        return;
      }
      sender.close();
      this.#sender = undefined;
    });
  }

  /** Sends the large parts of a message, and what stands for it. */
  #sendAround(self: unknown, args: Parameters<Send>, message: object, sender: PartSender): boolean {
    const before = sender.part;
    try {
      const instead = this.#advanced
        ? encodeMessage(message, sender)
        : withPlaceholders(message, (buffer) =>
            sender.putWhole(buffer)
              ? placeholderText(sender.key, sender.part, buffer.length)
              : undefined,
          );
      return Reflect.apply(this.#nodeSend, self, [instead, ...args.slice(1)]);
    } catch (error) {
      sender.dropBehind(before);
      throw error;
    }
  }

  #largeBytes(message: unknown): number {
    return largeBytesIn(message, this.#advanced ? 'bytes' : 'buffers');
  }

  #onMessage(args: unknown[]): boolean {
    if (this.#broken) return false;
    const [message] = args;
    // (From then on the other end asks itself for what it needs.)
    if (this.#receivers.size > 0) return this.#restore(args, message);
    this.#received++;
    if (!isLargeBytes(message) && this.#received % SAMPLE_COUNT !== 1) return true;
    const lengthBytes = this.#advanced ? largeBytesIn(message, 'bytes') : numbersIn(message);
    if (lengthBytes > 0) this.#events.onLargeReceived(lengthBytes);
    return true;
  }

  /** Puts the message in place of what stood for it. @returns `false` where that is a lie. */
  #restore(args: unknown[], message: unknown): boolean {
    try {
      if (this.#advanced) {
        const receiver = this.#receivers.get(keyOf(message));
        if (receiver !== undefined) args[0] = decodeMessage(message as Uint8Array, receiver);
      } else for (const receiver of this.#receivers.values()) restoreNumbers(receiver, message);
      return true;
    } catch (error) {
      const lie =
        error instanceof UkshmError ? error : peerMisbehaved(`a message cannot be read: ${error}`);
      this.#end(lie);
      return false;
    }
  }

  /** The other end has lied, or there is no memory: the message is lost, and so is the pipe. */
  #end(error: UkshmError): void {
    const target = this.#target;
    this.#broken = true;
    // Not at once: Node may be handing out messages that it has kept.
    process.nextTick(() => {
      this.close();
      if (target.connected) target.disconnect();
      if (target.listenerCount('error') > 0) target.emit('error', error);
      else warn(error.message, error.code);
    });
  }

  #onControl(message: Control): void {
    if (message.ready === undefined) {
      this.#events.onControl(message);
      return;
    }
    const key = hex(keyReceived(message.ready));
    const resolve = this.#ready.get(key);
    if (resolve !== undefined) resolve();
    else if (this.#ready.size < READY_MAX) this.#ready.set(key, () => {});
  }
}

/** A key as `keyToSend` made it; of no bytes, where it is none. */
export function keyReceived(key: unknown): Uint8Array {
  if (key instanceof Uint8Array) return new Uint8Array(key);
  return Buffer.from(typeof key === 'string' ? key : '', 'hex');
}

function hex(key: Uint8Array): string {
  return Buffer.from(key).toString('hex');
}

/** The key with which a message begins that may be a marker; empty, where it cannot be one. */
function keyOf(message: unknown): string {
  if (!(message instanceof Uint8Array)) return '';
  return Buffer.from(message.buffer, message.byteOffset, message.length).toString(
    'hex',
    0,
    KEY_BYTES,
  );
}

function isControl(message: unknown): message is Control {
  return (message as Control | null)?.cmd === CONTROL_COMMAND;
}

/** What can be said of a message at a glance. */
function isLargeBytes(message: unknown): boolean {
  const bytes = ArrayBuffer.isView(message) || message instanceof ArrayBuffer ? message : undefined;
  return bytes !== undefined && bytes.byteLength >= PART_BYTES_MIN;
}

function restoreNumbers(receiver: PartReceiver, message: unknown): void {
  if (!receiver.collect()) return;
  for (const { part, lengthBytes, buffer } of placeholdersIn(message, receiver.key)) {
    const bytes = receiver.take({ part, lengthBytes, sharedBytes: lengthBytes, rest: NOTHING });
    buffer.data = numbersOf(bytes);
  }
}

/** How many numbers of a large Buffer are in what JSON.parse made, at the top or just below. */
function numbersIn(message: unknown): number {
  const numbers = (value: unknown): number => {
    const { type, data } = (value ?? {}) as { type?: unknown; data?: unknown };
    const large = type === 'Buffer' && Array.isArray(data) && data.length >= PART_BYTES_MIN;
    return large ? data.length : 0;
  };
  if (typeof message !== 'object' || message === null || Array.isArray(message)) return 0;
  return numbers(message) || Math.max(0, ...Object.values(message).slice(0, 64).map(numbers));
}
