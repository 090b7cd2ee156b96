// Requests and their replies, matched by the record's id.
//
//     request: pending → replied (a reply or a failure came)
//              pending → abandoned (its signal) → forgotten (the reply came all the same)
//              pending → rejected (the channel ends)
//     prohibited: a reply to an id that is neither pending nor abandoned: the peer misbehaves
//
// Whoever reads the channel takes the replies along. While nobody does, a pump reads: replies are
// handed out, and the messages between them are set aside for the next reader.
import { peerMisbehaved, RemoteError, UkshmError } from '../core/errors.js';
import { Aborts } from './aborts.js';
import { FAILURE, type Kind, REPLY, REQUEST } from './kinds.js';
import type { Loan } from './loan.js';
import type { Message, ReceivedMessage } from './message.js';
import type { ReplyOptions, RequestOptions } from './options.js';
import type { RecordWaits } from './records.js';
import type { Sender } from './sender.js';
import type { SpaceWaits } from './space.js';

/** Requests of one channel that wait for their reply, abandoned ones included: a power of two. */
const SLOTS_MAX = 65536;
/** Bytes of a failure's text; the rest is cut off. */
const FAILURE_BYTES_MAX = 4096;

/**
 * One request that was sent. Kept in an array and used again, because a Map whose entries come and
 * go leaves a chain of old tables behind, along which the garbage collector keeps everything.
 */
class Slot {
  /** Its number in the array, and how often it was used before: unlike all that are under way. */
  id: number;
  resolve: ((reply: Message) => void) | undefined = undefined;
  /** `undefined`: given up; the reply is still to come. */
  reject: ((error: unknown) => void) | undefined = undefined;
  /** Stops listening to the request's signal. */
  settle: (() => void) | undefined = undefined;
  busy = false;
  constructor(id: number) {
    this.id = id;
  }
}

interface Outgoing {
  readonly kind: Kind;
  readonly type: number;
  readonly id: number;
  /** Of a loan: what of it is sent. */
  readonly lengthBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What requests ask of their channel. */
export interface RequestsOptions {
  readonly sender: Sender;
  readonly space: SpaceWaits;
  readonly records: RecordWaits;
  /** Reads all that waits: replies come to `onReply`, messages are set aside. */
  readonly setAside: () => void;
  /** Why nothing is asked or answered any more; `undefined` while the channel is open. */
  readonly ended: () => UkshmError | undefined;
  /** Ends the channel for a lie of the peer's; answers what to throw on. */
  readonly failed: (error: unknown) => unknown;
}

export class Requests {
  readonly #options: RequestsOptions;
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  readonly #aborts: Aborts = new Aborts();
  #waiting = 0;
  #pumping = false;

  constructor(options: RequestsOptions) {
    this.#options = options;
  }

  /** Requests that wait for their reply. */
  get count(): number {
    return this.#waiting;
  }

  request(body: Uint8Array | Loan, options: RequestOptions | undefined): Promise<Message> {
    const { type = 0, lengthBytes, signal } = options ?? {};
    return new Promise<Message>((resolve, reject) => {
      if (signal?.aborted) throw signal.reason;
      const ended = this.#options.ended();
      if (ended !== undefined) throw ended;
      const slot = this.#takeSlot();
      const { id } = slot;
      const sent = (): void => {
        slot.busy = true;
        slot.resolve = resolve;
        slot.reject = reject;
        if (signal !== undefined) {
          slot.settle = this.#aborts.on(signal, (reason) => this.#abandon(slot, reason));
        }
        this.#waiting++;
        this.#startPump();
      };
      const failed = (error: unknown): void => {
        this.#free.push(slot);
        reject(error);
      };
      try {
        this.#send(body, { kind: REQUEST, type, id, lengthBytes, signal }, sent)?.catch(failed);
      } catch (error) {
        failed(error);
      }
    });
  }

  /** A reply or failure came. @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`. */
  onReply(message: ReceivedMessage, kind: Kind): void {
    const { id } = message;
    const slot = this.#slots[id & (SLOTS_MAX - 1)];
    if (slot === undefined || slot.id !== id || !slot.busy) {
      message.release();
      throw unasked(id);
    }
    const { resolve, reject } = slot;
    this.#freeSlot(slot);
    if (resolve === undefined || reject === undefined) {
      message.release();
    } else if (kind !== FAILURE) {
      this.#waiting--;
      resolve(message);
    } else {
      this.#waiting--;
      const text = message.text();
      message.release();
      reject(remoteError(text));
    }
  }

  /** Answers a request; releases it once the answer is sent. */
  async answer(
    request: ReceivedMessage,
    body: Uint8Array | Loan,
    options: ReplyOptions | undefined,
  ): Promise<void> {
    const { type = 0, lengthBytes, signal } = options ?? {};
    const record = { kind: REPLY, type, id: request.id, lengthBytes, signal };
    await this.#send(body, record, () => request.release());
  }

  /** Says why there is no reply to request `id`; does not wait, and never fails. */
  refuse(id: number, error: unknown): void {
    const send = async (): Promise<unknown> =>
      this.#send(failureBody(error), { kind: FAILURE, type: 0, id }, () => {});
    // A channel that has ended needs no answer.
    send().catch(() => {});
  }

  /** All that wait are told that they wait in vain. */
  fail(error: unknown): void {
    for (const slot of this.#slots) if (slot.busy) this.#abandon(slot, error);
  }

  #takeSlot(): Slot {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#slots.length === SLOTS_MAX) throw tooMany();
    const slot = new Slot(this.#slots.length);
    this.#slots.push(slot);
    return slot;
  }

  #freeSlot(slot: Slot): void {
    slot.settle?.();
    slot.settle = slot.resolve = slot.reject = undefined;
    slot.busy = false;
    slot.id = (slot.id + SLOTS_MAX) >>> 0;
    this.#free.push(slot);
  }

  #abandon(slot: Slot, reason: unknown): void {
    const { reject } = slot;
    if (reject === undefined) return;
    slot.settle?.();
    slot.settle = slot.resolve = slot.reject = undefined;
    this.#waiting--;
    reject(reason);
  }

  /** Sends now, or as soon as there is room; calls `sent` right behind it. */
  #send(body: Uint8Array | Loan, record: Outgoing, sent: () => void): Promise<unknown> | undefined {
    const { sender, space, failed } = this.#options;
    const { kind, type, id, lengthBytes, signal } = record;
    if (!(body instanceof Uint8Array)) {
      sender.sendLoan(body, kind, type, id, lengthBytes);
      sent();
      return undefined;
    }
    const attempt = (): true | undefined => {
      try {
        if (!sender.trySend(body, type, id, true, kind)) return undefined;
      } catch (error) {
        throw failed(error);
      }
      sent();
      return true;
    };
    if (space.count === 0 && attempt()) return undefined;
    return space.when(attempt, signal);
  }

  #startPump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    void this.#pump();
  }

  async #pump(): Promise<void> {
    const { records, setAside, ended } = this.#options;
    // Requests of the same turn are sent before anybody looks for a reply.
    await undefined;
    try {
      while (this.#waiting > 0 && (await records.fresh())) setAside();
      if (this.#waiting > 0) this.fail(ended());
    } catch (error) {
      this.fail(this.#options.failed(error));
    } finally {
      this.#pumping = false;
    }
  }
}

function failureBody(error: unknown): Uint8Array {
  const { name, code, message } = (error ?? {}) as {
    name?: string;
    code?: string;
    message?: string;
  };
  const line = (value: unknown): string => String(value ?? '').replaceAll('\n', ' ');
  const text = `${line(name ?? 'Error')}\n${line(code)}\n${message ?? String(error)}`;
  return new TextEncoder().encode(text).subarray(0, FAILURE_BYTES_MAX);
}

function remoteError(text: string): RemoteError {
  const [name = '', code = '', ...rest] = text.split('\n');
  return new RemoteError(name, code, rest.join('\n'));
}

function unasked(id: number): UkshmError {
  return peerMisbehaved(`a reply to request ${id}, which was not asked or has its reply`);
}

function tooMany(): UkshmError {
  return new UkshmError(
    'ERR_UKSHM_LIMIT',
    `${SLOTS_MAX} requests wait for their replies: await some before you send more`,
  );
}
