// Goal: access, owners and limits: who may meet whom, how much of it, and who is told what when not.
import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import {
  type Access,
  type Channel,
  type Credentials,
  connect,
  type Listener,
  type ListenOptions,
  listen,
  UkshmError,
} from '../../src/index.js';
import { ACTOR_IS_READABLE, codeOf, startActor, uniqueName } from './actors.js';
import { endAll, folderFor, listenFor } from './local.js';

const OPTIONS = { timeout: 30_000 };
const STRANGER = 12345;
const SMALL = { arenaBytes: 65536, ringBytes: 4096 };

/** Why nothing can run as another user here; `false` if it can. */
function cannotBeStranger(): string | false {
  if (process.geteuid?.() !== 0) return 'not possible here: needs root, to run as another user';
  return ACTOR_IS_READABLE
    ? false
    : 'not possible here: another user may not read this folder; put the project elsewhere';
}
const STRANGER_OPTIONS = { ...OPTIONS, skip: cannotBeStranger() };

describe('another user', () => {
  it('is refused by a listener that does not name him', STRANGER_OPTIONS, async (t) => {
    const stranger = await startActor(t, { uid: STRANGER });
    const owner = { owner: { uids: [0] } };
    for (const access of [undefined, { uids: [STRANGER + 1] }, { pids: [1] }, () => false]) {
      const listener = await listenFor(t, access === undefined ? {} : { access });
      const call = stranger.call('connect', listener.name, 'c', owner);
      assert.equal(await codeOf(call), 'ERR_UKSHM_ACCESS_DENIED');
    }
  });

  it('is admitted by id, by process, or by a function of both', STRANGER_OPTIONS, async (t) => {
    const stranger = await startActor(t, { uid: STRANGER });
    const asked: Credentials[] = [];
    const accesses: Access[] = [
      { uids: [STRANGER] },
      { pids: [stranger.pid] },
      (peer) => {
        asked.push(peer);
        return peer.uid === STRANGER;
      },
    ];
    for (const [index, access] of accesses.entries()) {
      const listener = await listenFor(t, { access });
      const accepted = listener.accept();
      await stranger.call('connect', listener.name, `c${index}`, { owner: { uids: [0] } });
      const channel = await accepted;
      const who = { pid: stranger.pid, uid: STRANGER, gid: STRANGER };
      assert.deepEqual({ ...channel.peer }, who);
      await channel.send(Buffer.alloc(0));
      await stranger.call('receive', `c${index}`, 1);
      await endAll(channel);
    }
    assert.equal(asked.length, 1);
    assert.equal(asked[0]?.pid, stranger.pid);
  });

  it('who holds the name is noticed before anything is sent', STRANGER_OPTIONS, async (t) => {
    const name = uniqueName('squatted');
    const stranger = await startActor(t, { uid: STRANGER });
    await stranger.call('squat', name, 0);
    await assert.rejects(connect(name), (error) => {
      assert.ok(error instanceof UkshmError);
      assert.equal(error.code, 'ERR_UKSHM_WRONG_OWNER');
      assert.match(error.message, new RegExp(`process ${stranger.pid} of user ${STRANGER}`));
      return true;
    });
    await assert.rejects(listen(name), (error) => {
      assert.ok(error instanceof UkshmError);
      assert.equal(error.code, 'ERR_UKSHM_NAME_IN_USE');
      assert.match(error.message, new RegExp(`process ${stranger.pid} of user ${STRANGER}`));
      return true;
    });
    assert.equal(await stranger.call('squatted'), 0, 'not a byte came');
  });

  it('may not reach a path that he may not write', STRANGER_OPTIONS, async (t) => {
    const folder = folderFor(t);
    const listener = await listenFor(t, { access: () => true }, join(folder, 'socket'));
    const stranger = await startActor(t, { uid: STRANGER });
    const owner = { owner: { uids: [0] } };
    const refused = stranger.call('connect', listener.name, 'c', owner);
    assert.equal(await codeOf(refused), 'ERR_UKSHM_ACCESS_DENIED');
    chmodSync(folder, 0o755);
    chmodSync(listener.name, 0o777);
    const accepted = listener.accept();
    await stranger.call('connect', listener.name, 'c', owner);
    await endAll(await accepted);
  });

  it('is not expected unless named as owner', STRANGER_OPTIONS, async (t) => {
    const folder = folderFor(t);
    chmodSync(folder, 0o777);
    const name = join(folder, 'socket');
    const stranger = await startActor(t, { uid: STRANGER });
    await stranger.call('listen', name, { access: { uids: [0] } });
    assert.equal(await codeOf(connect(name)), 'ERR_UKSHM_WRONG_OWNER');
    for (const owner of [{ uids: [STRANGER] }, { pids: [stranger.pid] }, () => true]) {
      const accepted = stranger.call('accept', name, 'c');
      const channel = await connect(name, { owner });
      assert.equal(await accepted, process.pid);
      await endAll(channel);
    }
  });
});

describe('an access', () => {
  it('that is none is refused', OPTIONS, async () => {
    for (const access of ['anyone', {}, 7, { uids: 0 }] as unknown as Access[]) {
      assert.equal(await codeOf(listen('wrong', { access })), 'ERR_UKSHM_INVALID_ARGUMENT');
      assert.equal(await codeOf(connect('wrong', { owner: access })), 'ERR_UKSHM_INVALID_ARGUMENT');
    }
  });

  it('by process admits that process alone', OPTIONS, async (t) => {
    const [named, other] = await Promise.all([startActor(t), startActor(t)]);
    const listener = await listenFor(t, { access: { pids: [named.pid] } });
    const refused = other.call('connect', listener.name, 'c');
    assert.equal(await codeOf(refused), 'ERR_UKSHM_ACCESS_DENIED');
    const accepted = listener.accept();
    await named.call('connect', listener.name, 'c');
    assert.equal((await accepted).peer.pid, named.pid);
    await endAll(await accepted);
  });
});

describe('a limit', () => {
  /** Connects several times at once; how many got through, and the codes of the others. */
  async function connectMany(
    context: TestContext,
    listener: Listener,
    count: number,
  ): Promise<{ channels: Channel[]; codes: string[] }> {
    const channels: Channel[] = [];
    const codes: string[] = [];
    const one = async (): Promise<void> => {
      const channel = await connect(listener.name);
      channels.push(channel);
    };
    await Promise.all(Array.from({ length: count }, async () => codes.push(await codeOf(one()))));
    context.after(() => endAll(...channels));
    return { channels, codes: codes.filter((code) => code !== 'none') };
  }

  it('of channels holds, also for many who come at once', OPTIONS, async (t) => {
    const listener = await listenFor(t, { ...SMALL, maxChannels: 3 });
    const { channels, codes } = await connectMany(t, listener, 10);
    assert.equal(channels.length, 3);
    assert.deepEqual(codes, Array(7).fill('ERR_UKSHM_LIMIT'));
    // A place that is given up can be had.
    await endAll(await listener.accept());
    const again = await connect(listener.name);
    assert.equal(await codeOf(connect(listener.name)), 'ERR_UKSHM_LIMIT');
    await endAll(again);
  });

  it('of a user’s memory holds, also for many who come at once', OPTIONS, async (t) => {
    // Each direction: 4 KiB of ring and 64 KiB of arena in 128 KiB; two channels fit.
    const listener = await listenFor(t, { ...SMALL, maxBytesPerUser: 600_000 });
    const { channels, codes } = await connectMany(t, listener, 8);
    assert.equal(channels.length, 2);
    assert.deepEqual(codes, Array(6).fill('ERR_UKSHM_LIMIT'));
    await endAll(...channels);
    for (const _ of channels) await endAll(await listener.accept());
    await endAll(await connect(listener.name));
  });

  it('of what a connector may ask for holds, in both directions', OPTIONS, async (t) => {
    const listener = await listenFor(t, { ...SMALL, maxArenaBytes: 1048576 });
    for (const asked of [
      { sendArenaBytes: 1048577 },
      { receiveArenaBytes: 1048577 },
      { sendRingBytes: 2097152 },
      { receiveRingBytes: 2097152 },
    ]) {
      assert.equal(await codeOf(connect(listener.name, asked)), 'ERR_UKSHM_LIMIT');
    }
    const most = { sendArenaBytes: 1048576, receiveArenaBytes: 1048576 };
    const [near, far] = await Promise.all([listener.accept(), connect(listener.name, most)]);
    await near.send(new Uint8Array(1048576));
    await far.send(new Uint8Array(1048576));
    await endAll(near, far);
  });

  it('sizes each direction as the connector asks', OPTIONS, async (t) => {
    const listener = await listenFor(t, SMALL);
    const asked = { sendArenaBytes: 2_000_000, receiveArenaBytes: 0, receiveRingBytes: 16384 };
    const [near, far] = await Promise.all([listener.accept(), connect(listener.name, asked)]);
    await far.send(new Uint8Array(2_000_000));
    assert.throws(() => near.trySend(new Uint8Array(2049)), { code: 'ERR_UKSHM_MESSAGE_TOO_LONG' });
    assert.ok(near.trySend(new Uint8Array(2048)));
    await endAll(near, far);
  });

  it('of options is checked on both sides', OPTIONS, async () => {
    const wrongListen: ListenOptions[] = [
      { ringBytes: 5000 },
      { ringBytes: 2048 },
      { ringBytes: 2 ** 31 },
      { arenaBytes: -1 },
      { arenaBytes: 2 ** 31 },
      { maxChannels: 0 },
      { maxBytesPerUser: -1 },
      { handshakeTimeoutMs: 0 },
      { spinMicros: 20_000 },
      { inFlightBytes: -5 },
    ];
    for (const options of wrongListen) {
      const code = await codeOf(listen(uniqueName('wrong'), options));
      assert.equal(code, 'ERR_UKSHM_INVALID_ARGUMENT', JSON.stringify(options));
    }
    for (const options of [
      { sendRingBytes: 5000 },
      { receiveRingBytes: 1 },
      { sendArenaBytes: 2 ** 31 },
      { receiveArenaBytes: 0.5 },
      { timeoutMs: 0 },
      { spinMicros: -1 },
    ]) {
      const code = await codeOf(connect('nobody', options));
      assert.equal(code, 'ERR_UKSHM_INVALID_ARGUMENT', JSON.stringify(options));
    }
  });
});
