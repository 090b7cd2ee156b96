// A victim for hostile connectors: an actor that listens, with an honest channel on the same
// listener that must go on working whatever happens to the others.
import assert from 'node:assert/strict';
import { type Channel, connect } from '../../src/index.js';
import { type Actor, type Owner, startActor, uniqueName, until } from './actors.js';
import type { Usage } from './fixtures/actor.js';
import { endAll } from './local.js';
import { isPattern, pattern } from './pattern.js';
import { type RawConnector, rawConnect } from './raw-peer.js';

/** Of the victim's outbox and of the hostile one. */
export const RING_BYTES = 16384;
export const ARENA_BYTES = 131072;
/** How long the victim's impatient listener waits in a meeting. */
export const HANDSHAKE_MS = 500;

export class Victim {
  readonly actor: Actor;
  readonly name: string;
  /** The same actor's listener with little patience. */
  readonly impatient: string;
  readonly #honest: Channel;
  #accepted = 0;

  constructor(actor: Actor, name: string, impatient: string, honest: Channel) {
    this.actor = actor;
    this.name = name;
    this.impatient = impatient;
    this.#honest = honest;
  }

  /** The honest channel still works. */
  async expectHonest(): Promise<void> {
    for (const [id, lengthBytes] of [100, 30_000].entries()) {
      await this.#honest.send(pattern(lengthBytes, id), { id });
      for await (const message of this.#honest) {
        assert.ok(message.id === id && isPattern(message.bytes, id));
        message.release();
        break;
      }
    }
  }

  /** A channel with a connector without manners; the victim calls it `as`. */
  async hostileChannel(owner: Owner): Promise<{ raw: RawConnector; as: string }> {
    const as = `hostile${++this.#accepted}`;
    const accepting = this.actor.call('accept', this.name, as);
    const raw = await rawConnect(this.name);
    owner.after(() => raw.close());
    await accepting;
    return { raw, as };
  }

  async expectMisbehaved(as: string, words: RegExp): Promise<void> {
    const { reason, code, message } = await this.actor.call('closed', as);
    assert.deepEqual(
      { reason, code },
      { reason: 'peer-misbehaved', code: 'ERR_UKSHM_PEER_MISBEHAVED' },
    );
    assert.match(message ?? '', words);
  }

  /** The victim has no more descriptors and mappings than before. */
  async expectNothingLeft(before: Usage): Promise<void> {
    await until('nothing of it is left', async () => {
      const { fds, memfds } = await this.actor.call('usage');
      return fds.length === before.fds.length && memfds === before.memfds;
    });
  }
}

export async function startVictim(owner: Owner): Promise<Victim> {
  const name = uniqueName('hostile');
  const impatient = uniqueName('impatient');
  const actor = await startActor(owner, { watchTurns: true });
  const sizes = { ringBytes: RING_BYTES, arenaBytes: ARENA_BYTES, maxChannels: 8 };
  await actor.call('listen', name, sizes);
  await actor.call('listen', impatient, { ...sizes, handshakeTimeoutMs: HANDSHAKE_MS });
  const accepting = actor.call('accept', name, 'honest');
  const honest = await connect(name);
  owner.after(() => endAll(honest));
  await accepting;
  await actor.call('echo', 'honest');
  return new Victim(actor, name, impatient, honest);
}
