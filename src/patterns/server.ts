// A server of requests: every channel of a listener, or one channel, and an async handler that
// runs for a bounded number of requests at a time. What is beyond waits in the senders' rings.
import type { Channel } from '../channel/channel.js';
import type { Loan } from '../channel/loan.js';
import type { Listener } from '../channel/meeting/listener.js';
import type { Message, MessageCursor } from '../channel/message.js';
import { checkInteger } from '../core/check.js';
import { UkshmError } from '../core/errors.js';

const CONCURRENCY_DEFAULT = 64;
const CONCURRENCY_MAX = 1_000_000;

/** What a handler answers: bytes, a loan of the request's channel, or nothing (an empty reply). */
export type ReplyBody = Uint8Array | Loan | undefined;

/** What a handler is told beside the request. */
export interface RequestContext {
  readonly channel: Channel;
  /** Aborts when the channel has ended: nobody waits for the reply any more. */
  readonly signal: AbortSignal;
}

/**
 * Answers a request. Its bytes are valid until the handler's promise settles; a small request is a
 * private copy, a large one lies in its sender's memory. What it throws is the reply's error.
 */
export type RequestHandler = (
  request: Message,
  context: RequestContext,
  // biome-ignore lint/suspicious/noConfusingVoidType: a handler need not return anything.
) => ReplyBody | void | Promise<ReplyBody | void>;

/** How requests are served. */
export interface ServeOptions {
  /**
   * Handlers that run at a time, over all channels, 1 to 1 000 000; as many replies of each channel may
   * wait for its client to make room. Default 64.
   */
  readonly concurrency?: number;
  /** Gets messages that are no requests; they are released when it returns. Default: ignored. */
  readonly onMessage?: (message: MessageCursor, channel: Channel) => void;
  /** Told why a channel ended, where that was an error, and what `onMessage` threw. */
  readonly onError?: (error: unknown, channel: Channel) => void;
  /** Closes the server. */
  readonly signal?: AbortSignal;
}

/** A channel that is served. */
interface Client {
  readonly context: RequestContext;
  /** Requests that were read, and whose reply has not gone out: a client may leave no room for it. */
  unanswered: number;
  /** Called when a reply has gone out, or cannot any more. */
  wake: () => void;
}

/** A running server. */
export class Server {
  /** Resolves when all channels have ended and all handlers have settled. */
  readonly closed: Promise<void>;
  readonly #source: Listener | Channel;
  readonly #handler: RequestHandler;
  readonly #options: ServeOptions;
  readonly #concurrency: number;
  readonly #channels: Set<Channel> = new Set();
  #running = 0;
  /** Those who wait for a handler to settle. */
  #waiting: (() => void)[] = [];
  #closing: Promise<void> | undefined = undefined;

  /** @internal For `serve`. */
  constructor(source: Listener | Channel, handler: RequestHandler, options: ServeOptions) {
    this.#source = source;
    this.#handler = handler;
    this.#options = options;
    this.#concurrency = checkInteger(
      'concurrency',
      options.concurrency ?? CONCURRENCY_DEFAULT,
      1,
      CONCURRENCY_MAX,
    );
    options.signal?.addEventListener('abort', () => void this.close(), { once: true });
    this.closed = 'accept' in source ? this.#serveAll(source) : this.#serveOne(source);
    if (options.signal?.aborted) void this.close();
  }

  /** Handlers that run now. */
  get running(): number {
    return this.#running;
  }

  /** Closes the listener and its channels once the handlers that run have settled. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** As `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    if ('accept' in this.#source) await this.#source.close();
    while (this.#running > 0) await this.#settled();
    await Promise.all([...this.#channels].map((channel) => channel.close()));
    await this.closed;
  }

  async #serveAll(listener: Listener): Promise<void> {
    const served: Set<Promise<void>> = new Set();
    for await (const channel of listener) {
      const ends = this.#serveOne(channel).finally(() => served.delete(ends));
      served.add(ends);
    }
    await Promise.all(served);
    while (this.#running > 0) await this.#settled();
  }

  async #serveOne(channel: Channel): Promise<void> {
    const ended = new AbortController();
    const context: RequestContext = { channel, signal: ended.signal };
    const client: Client = { context, unanswered: 0, wake: () => {} };
    const onMessage = (message: MessageCursor): void => this.#onMessage(message, client);
    this.#channels.add(channel);
    try {
      while ((await channel.readable()) && this.#closing === undefined) {
        // A client that reads no replies holds up itself, and no handler.
        const room = this.#concurrency - client.unanswered;
        const free = Math.min(room, this.#concurrency - this.#running);
        if (free > 0) channel.drain(onMessage, free);
        else await (room > 0 ? this.#settled() : answered(client));
      }
    } catch (error) {
      if (this.#closing === undefined) this.#options.onError?.(error, channel);
    } finally {
      if (this.#closing === undefined) ended.abort();
      // A server that closes finishes what it has begun; else nobody waits for that any more.
      while (this.#closing !== undefined && this.#running > 0) await this.#settled();
      this.#channels.delete(channel);
      await channel.close().catch(() => {});
    }
  }

  #onMessage(message: MessageCursor, client: Client): void {
    if (message.isRequest) {
      void this.#answer(message.detach(), client);
      return;
    }
    const { channel } = client.context;
    try {
      this.#options.onMessage?.(message, channel);
    } catch (error) {
      this.#options.onError?.(error, channel);
    }
  }

  async #answer(request: Message, client: Client): Promise<void> {
    client.unanswered++;
    try {
      let body: Awaited<ReturnType<RequestHandler>>;
      this.#running++;
      try {
        const result = this.#handler(request, client.context);
        body = result instanceof Promise ? await result : result;
      } finally {
        this.#running--;
        for (const wake of this.#waiting.splice(0)) wake();
      }
      // No handler runs any more: this waits for its client, as long as that likes.
      await request.reply(body ?? undefined);
    } catch (error) {
      fail(request, error);
    } finally {
      client.unanswered--;
      client.wake();
    }
  }

  #settled(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** Resolves when the next reply to a client has gone out, or cannot any more. */
function answered(client: Client): Promise<void> {
  return new Promise((resolve) => {
    client.wake = resolve;
  });
}

/** Tells the other side of the error, unless it has been told something already, or is gone. */
function fail(request: Message, error: unknown): void {
  try {
    request.refuse(error);
  } catch (again) {
    if (!(again instanceof UkshmError)) throw again;
  }
}

/**
 * Serves the requests of every channel that a listener accepts, or those of one channel. The
 * channels are the server's: it reads and closes them.
 *
 * @throws UkshmError `ERR_UKSHM_INVALID_ARGUMENT`.
 */
export function serve(
  source: Listener | Channel,
  handler: RequestHandler,
  options: ServeOptions = {},
): Server {
  return new Server(source, handler, options);
}
