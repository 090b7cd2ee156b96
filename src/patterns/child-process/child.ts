// The child's side of a fork: loaded by the preload when the parent invites for the first time.
import { Endpoint, keyReceived, type Send, type Target } from './endpoint.js';
import { type Invitation, join } from './meet.js';

/** What the preload has put between the program and Node. */
export interface Bypass {
  /** What the program's `process.send` calls. */
  send: Send;
  /** What `process.emit` asks first: whether anybody is to hear of the event. */
  onEvent: (event: string, args: unknown[]) => boolean;
}

/** What came through the pipe. */
type Message = Readonly<Record<string, unknown>>;

class Child {
  readonly #endpoint: Endpoint;
  readonly #ended: AbortController = new AbortController();

  constructor(bypass: Bypass, advanced: boolean) {
    this.#endpoint = new Endpoint(process as unknown as Target, bypass.send, advanced, {
      onLargeSent: (lengthBytes) => this.#endpoint.control({ wish: lengthBytes }),
      // The parent sees to it: it was the one to send them.
      onLargeReceived: () => {},
      onControl: (message) => this.onControl(message),
      onDisconnect: () => this.#end(),
    });
    bypass.send = this.#endpoint.send;
    bypass.onEvent = (event, args) => this.#endpoint.onEvent(event, args);
  }

  onControl(message: Message): void {
    const invitation = invitationIn(message);
    if (invitation === undefined) return;
    join(this.#endpoint, invitation, this.#ended.signal).catch(() => {
      this.#endpoint.control({ failed: this.#endpoint.keyToSend(invitation.key) });
    });
  }

  #end(): void {
    this.#ended.abort();
    this.#endpoint.close();
  }
}

/** Answers the first invitations; from then on the child hears of others itself. */
export function begin(bypass: Bypass, invitations: readonly Message[]): void {
  const child = new Child(bypass, invitations[0]?.invite instanceof Uint8Array);
  for (const message of invitations) child.onControl(message);
}

function invitationIn(message: Message): Invitation | undefined {
  const { invite, name, uid, down, arenaBytes } = message;
  const key = keyReceived(invite);
  if (typeof name !== 'string' || typeof uid !== 'number' || key.length === 0) return undefined;
  return { key, name, uid, down: down === true, arenaBytes: Number(arenaBytes) };
}
