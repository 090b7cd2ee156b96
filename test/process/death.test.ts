// Goal: a killed peer is known at once by its pid, what it had published is still delivered, and
// what it held is its owner's again; a stopped peer is not a dead one.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { addressOfName } from '../../src/channel/meeting/address.js';
import { DEFAULT_SIZE, encodeHello, WELCOME_BYTES } from '../../src/channel/meeting/wire.js';
import { closeDescriptor } from '../../src/sys/memory.js';
import { connectSocket, receiveDescriptors, send, unixSocket } from '../../src/sys/socket.js';
import {
  type Actor,
  codeOf,
  DEATH_MS,
  killPid,
  now,
  startActor,
  uniqueName,
  until,
} from './actors.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 1048576, ringBytes: 16384 };

interface Two {
  readonly survivor: Actor;
  readonly victim: Actor;
  readonly name: string;
}

/** Two processes with a channel that both call `c`; the victim listens or connects. */
async function connected(
  context: TestContext,
  role: 'listener' | 'connector' = 'connector',
): Promise<Two> {
  const name = uniqueName('death');
  const [survivor, victim] = await Promise.all([startActor(context), startActor(context)]);
  const [listening, connecting] = role === 'listener' ? [victim, survivor] : [survivor, victim];
  await listening.call('listen', name, SMALL);
  const accepted = listening.call('accept', name, 'c');
  await connecting.call('connect', name, 'c');
  await accepted;
  return { survivor, victim, name };
}

/** Kills the victim and checks how and when the survivor learns of it. */
async function killAndLook(context: TestContext, { survivor, victim }: Two): Promise<void> {
  const closed = survivor.call('closed', 'c');
  const killedMs = now();
  victim.kill();
  const { reason, code, message, atMs } = await closed;
  const delayMs = atMs - killedMs;
  context.diagnostic(`known after ${delayMs.toFixed(1)} ms`);
  assert.equal(reason, 'peer-gone');
  assert.equal(code, 'ERR_UKSHM_PEER_GONE');
  assert.match(message ?? '', new RegExp(`process ${victim.pid} of user`));
  assert.ok(delayMs < DEATH_MS, `known only after ${delayMs} ms`);
}

async function expectNothingLent(survivor: Actor): Promise<void> {
  const stats = (await survivor.call('stats', 'c')) as Record<string, number>;
  assert.deepEqual(
    { bytesLent: stats.bytesLent, chunksLent: stats.chunksLent, waiting: stats.waitingSends },
    { bytesLent: 0, chunksLent: 0, waiting: 0 },
  );
}

for (const role of ['listener', 'connector'] as const) {
  describe(`a ${role} that is killed`, () => {
    for (const lengthBytes of [100, 20_000]) {
      it(`while sending messages of ${lengthBytes} bytes`, OPTIONS, async (t) => {
        const two = await connected(t, role);
        void two.victim.call('flood', 'c', lengthBytes);
        await two.survivor.call('receive', 'c', 20);
        const received = two.survivor.call('receiveAll', 'c', 20);
        await sleep(50);
        await killAndLook(t, two);
        const { right, code, message } = await received;
        assert.ok(right, 'every message was whole and in order');
        assert.equal(code, 'ERR_UKSHM_PEER_GONE');
        assert.match(message, new RegExp(`process ${two.victim.pid} of user`));
        await expectNothingLent(two.survivor);
      });

      it(`while waiting for space for ${lengthBytes} bytes`, OPTIONS, async (t) => {
        const two = await connected(t, role);
        const held = await two.victim.call('fill', 'c', lengthBytes);
        assert.ok(held > 2);
        void two.victim.call('flood', 'c', lengthBytes);
        await two.victim.call('sleep', 20);
        await killAndLook(t, two);
        // What it had published is still delivered, all of it.
        const { count, right, code } = await two.survivor.call('receiveAll', 'c');
        assert.deepEqual({ count, right }, { count: held, right: true });
        assert.equal(code, 'ERR_UKSHM_PEER_GONE');
        assert.equal((await two.survivor.call('usage')).memfds, 0);
      });

      it(`while the other waits for it to release ${lengthBytes} bytes`, OPTIONS, async (t) => {
        const two = await connected(t, role);
        await two.survivor.call('send', 'c', lengthBytes, 0);
        await two.victim.call('hold', 'c', 'm');
        const flooded = two.survivor.call('flood', 'c', lengthBytes);
        await until('the survivor waits', async () => {
          const stats = (await two.survivor.call('stats', 'c')) as { waitingSends: number };
          return stats.waitingSends === 1;
        });
        await killAndLook(t, two);
        assert.equal((await flooded).code, 'ERR_UKSHM_PEER_GONE');
        await expectNothingLent(two.survivor);
        assert.equal((await two.survivor.call('usage')).memfds, 0);
      });
    }

    it('while waiting for records, and while holding some', OPTIONS, async (t) => {
      const two = await connected(t, role);
      for (const id of [0, 1, 2]) await two.survivor.call('send', 'c', 50_000, id);
      await two.victim.call('hold', 'c', 'm0');
      await two.victim.call('hold', 'c', 'm1');
      await two.victim.call('receive', 'c', 1);
      void two.victim.call('receive', 'c', 1);
      await killAndLook(t, two);
      await expectNothingLent(two.survivor);
      assert.equal(
        await codeOf(two.survivor.call('send', 'c', 10, 0)),
        'ERR_UKSHM_PEER_GONE',
        'a send afterwards',
      );
      await two.survivor.call('close', 'c');
    });

    it('in the middle of a meeting', OPTIONS, async (t) => {
      const name = uniqueName('meeting');
      const [listening, connecting] = await Promise.all([startActor(t), startActor(t)]);
      await listening.call('listen', name, SMALL);
      const before = await listening.call('usage');
      // A stopped listener keeps the meeting where it is: the HELLO is sent, nothing is answered.
      listening.kill('SIGSTOP');
      const connect = connecting.call('connect', name, 'c');
      await sleep(100);
      if (role === 'listener') {
        listening.kill();
        assert.equal(await codeOf(connect), 'ERR_UKSHM_PEER_GONE');
        const usage = await connecting.call('usage');
        assert.equal(usage.memfds, 0);
        assert.deepEqual(
          usage.fds.filter((fd) => fd.includes('memfd')),
          [],
        );
        return;
      }
      connecting.kill();
      await connecting.exited;
      listening.kill('SIGCONT');
      await expectWorks(t, listening, name);
      await until('its descriptors are closed', async () => {
        const after = await listening.call('usage');
        return after.fds.length === before.fds.length && after.memfds === 0;
      });
    });
  });
}

/** An honest channel, opened and closed. */
async function expectWorks(context: TestContext, listening: Actor, name: string): Promise<void> {
  const honest = await startActor(context);
  const accepted = listening.call('accept', name, 'works');
  await honest.call('connect', name, 'c');
  assert.equal(await accepted, honest.pid);
  await honest.call('send', 'c', 1000, 5);
  const [told] = await listening.call('receive', 'works', 1);
  assert.ok(told?.right);
  await Promise.all([honest.call('close', 'c'), listening.call('close', 'works')]);
}

describe('a meeting that is left', () => {
  it('behind each of its steps leaves nothing promised', OPTIONS, async (t) => {
    const name = uniqueName('left');
    const server = await startActor(t);
    // Room for one channel: whatever stays promised makes the honest one fail.
    await server.call('listen', name, { ...SMALL, maxBytesPerUser: 2_400_000, maxChannels: 1 });
    const before = await server.call('usage');
    const hello = encodeHello({
      kind: 'channel',
      flags: 0,
      sendRingBytes: DEFAULT_SIZE,
      sendArenaBytes: DEFAULT_SIZE,
      receiveRingBytes: DEFAULT_SIZE,
      receiveArenaBytes: DEFAULT_SIZE,
      token: new Uint8Array(8),
      importAddress: new Uint8Array(0),
    });
    for (const sentBytes of [0, 1, hello.length - 1, hello.length]) {
      const fd = unixSocket();
      assert.equal(connectSocket(fd, addressOfName(name).bytes), 0);
      if (sentBytes !== 0) send(fd, hello.subarray(0, sentBytes));
      closeDescriptor(fd);
    }
    await until('a meeting gets as far as its WELCOME', async () => {
      const fd = unixSocket();
      assert.equal(connectSocket(fd, addressOfName(name).bytes), 0);
      send(fd, hello);
      const welcomed = await takeWelcome(fd);
      closeDescriptor(fd);
      return welcomed;
    });
    await until('all is closed', async () => {
      const after = await server.call('usage');
      return after.fds.length === before.fds.length && after.memfds === 0;
    });
    await expectWorks(t, server, name);
  });
});

/** Reads the WELCOME and drops what came with it; whether that were two descriptors. */
async function takeWelcome(fd: number): Promise<boolean> {
  const fds = new Int32Array(2);
  await until('the welcome comes', () => {
    return receiveDescriptors(fd, new Uint8Array(WELCOME_BYTES), fds) === WELCOME_BYTES;
  });
  const came = fds.filter((one) => one >= 0);
  for (const one of came) closeDescriptor(one);
  return came.length === 2;
}

describe('a peer', { concurrency: 2 }, () => {
  it('that exits without closing is gone', OPTIONS, async (t) => {
    const { survivor, victim } = await connected(t);
    await victim.call('send', 'c', 100, 0);
    await victim.call('send', 'c', 100_000, 1);
    void victim.call('exit');
    const { count, right, code } = await survivor.call('receiveAll', 'c');
    assert.deepEqual(
      { count, right, code },
      { count: 2, right: true, code: 'ERR_UKSHM_PEER_GONE' },
    );
  });

  it('is gone although its child has inherited the socket', OPTIONS, async (t) => {
    const two = await connected(t);
    const heir = await two.victim.call('bequeath');
    t.after(() => killPid(heir));
    assert.ok(heir > 0);
    await killAndLook(t, two);
  });

  it('that is stopped is not dead: all arrives when it goes on', OPTIONS, async (t) => {
    const { survivor, victim } = await connected(t);
    const total = 2000;
    const closed = survivor.call('closed', 'c');
    let ended = false;
    void closed.then(() => {
      ended = true;
    });
    victim.kill('SIGSTOP');
    const sent = (async () => {
      for (let id = 0; id < total; id++) await survivor.call('send', 'c', id * 10, id);
      await survivor.call('close', 'c');
    })();
    await sleep(3000);
    assert.equal(ended, false, 'the channel lives');
    const stats = (await survivor.call('stats', 'c')) as { waitingSends: number };
    assert.equal(stats.waitingSends, 1, 'the sender waits');
    const received = victim.call('receiveAll', 'c');
    victim.kill('SIGCONT');
    const { count, right, code } = await received;
    assert.deepEqual({ count, right, code }, { count: total, right: true, code: 'end' });
    await sent;
    assert.equal((await closed).reason, 'closed');
  });

  it('that says something and closes at once is heard to the end', OPTIONS, async (t) => {
    const name = uniqueName('hasty');
    const [reader, one, two] = await Promise.all([1, 2, 3].map(() => startActor(t)));
    if (reader === undefined || one === undefined || two === undefined) throw new Error();
    await reader.call('listen', name, { arenaBytes: 65536, ringBytes: 4096 });
    const heard = reader.call('listenTo', name, 200);
    await Promise.all([one.call('sayAndGo', name, 100, 3), two.call('sayAndGo', name, 100, 3)]);
    assert.deepEqual(await heard, Array(200).fill(3));
  });

  it('that closes is not gone, and what it sent is read to the end', OPTIONS, async (t) => {
    const { survivor, victim } = await connected(t);
    const count = await victim.call('fill', 'c', 3000);
    const closed = victim.call('close', 'c');
    const all = await survivor.call('receiveAll', 'c');
    assert.deepEqual({ count: all.count, code: all.code }, { count, code: 'end' });
    await closed;
    const { reason, code } = await survivor.call('closed', 'c');
    assert.deepEqual({ reason, code }, { reason: 'peer-closed', code: undefined });
    assert.equal(await codeOf(survivor.call('send', 'c', 1, 0)), 'ERR_UKSHM_PEER_CLOSED');
  });
});
