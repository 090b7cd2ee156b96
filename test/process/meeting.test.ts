// Goal: one meets at a name, which one process has at a time, and which is free when it has gone.
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { connect, listen, UkshmError } from '../../src/index.js';
import { boundSockets, codeOf, startActor, uniqueName, until } from './actors.js';
import { endAll, folderFor, listenFor } from './local.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 65536, ringBytes: 4096 };

describe('a name', () => {
  for (const kind of ['abstract', 'path'] as const) {
    it(`(${kind}) without a listener is an error, or is waited for`, OPTIONS, async (t) => {
      const name = kind === 'path' ? join(folderFor(t), 'socket') : uniqueName('later');
      assert.equal(await codeOf(connect(name)), 'ERR_UKSHM_NO_LISTENER');
      const waiting = connect(name, { wait: true });
      const listener = await listenFor(t, SMALL, name);
      const [near, far] = await Promise.all([listener.accept(), waiting]);
      await Promise.all([near.close(), far.close()]);
    });

    it(`(${kind}) is taken once, and the error says by whom`, OPTIONS, async (t) => {
      const name = kind === 'path' ? join(folderFor(t), 'socket') : uniqueName('taken');
      const holder = await startActor(t);
      await holder.call('listen', name, SMALL);
      await assert.rejects(listen(name), (error) => {
        assert.ok(error instanceof UkshmError);
        assert.equal(error.code, 'ERR_UKSHM_NAME_IN_USE');
        assert.match(error.message, new RegExp(`process ${holder.pid} of user`));
        return true;
      });
      holder.kill();
      await holder.exited;
      // What a killed listener leaves, if anything, is taken over.
      assert.equal(existsSync(name), kind === 'path');
      assert.equal(await codeOf(connect(name)), 'ERR_UKSHM_NO_LISTENER');
      const listener = await listenFor(t, SMALL, name);
      const [near, far] = await Promise.all([listener.accept(), connect(name)]);
      await Promise.all([near.close(), far.close()]);
      await listener.close();
      assert.equal(existsSync(name), false);
      assert.deepEqual(boundSockets(name), []);
    });
  }

  it('is free again when its listener was closed; its channels live on', OPTIONS, async (t) => {
    const listener = await listenFor(t, SMALL);
    const [near, far] = await Promise.all([listener.accept(), connect(listener.name)]);
    await listener.close();
    await listener.close();
    assert.equal(await codeOf(listener.accept()), 'ERR_UKSHM_CLOSED');
    assert.equal(await codeOf(connect(listener.name)), 'ERR_UKSHM_NO_LISTENER');
    const again = await listenFor(t, SMALL, listener.name);
    await far.send(Buffer.from('still there'));
    assert.equal(await near.readable(), true);
    await endAll(near, far);
    await again.close();
  });

  it('of any other form is refused', OPTIONS, async () => {
    const wrong = ['', 'ä', 'a b', 'a\0b', '/tmp/\0', `/tmp/${'x'.repeat(120)}`, 'x'.repeat(120)];
    for (const name of wrong) {
      assert.equal(await codeOf(listen(name)), 'ERR_UKSHM_INVALID_ARGUMENT', name);
      assert.equal(await codeOf(connect(name)), 'ERR_UKSHM_INVALID_ARGUMENT', name);
    }
    assert.equal(await codeOf(listen('/nonexistent/folder/socket')), 'ENOENT');
    assert.equal(await codeOf(connect('/nonexistent/folder/socket')), 'ERR_UKSHM_NO_LISTENER');
  });

  it('(path) is taken over by one of several who find it stale', OPTIONS, async (t) => {
    const folder = folderFor(t);
    const name = join(folder, 'socket');
    const [holder, ...others] = await Promise.all(Array.from({ length: 5 }, () => startActor(t)));
    for (let round = 0; round < 3; round++) {
      const listening = round === 0 ? holder : others.shift();
      if (listening === undefined) break;
      if (round === 0) await listening.call('listen', name, SMALL);
      listening.kill();
      await listening.exited;
      const codes = await Promise.all(others.map((one) => codeOf(one.call('listen', name, SMALL))));
      assert.deepEqual(
        codes.sort().map((code) => code.replace('none', 'ERR_UKSHM_NAME_IN_USE')),
        codes.map(() => 'ERR_UKSHM_NAME_IN_USE'),
      );
      assert.equal(codes.filter((code) => code === 'none').length, 1, 'one has it');
      assert.deepEqual(readdirSync(folder), ['socket'], 'and nothing lies beside it');
      const who = await connect(name);
      const index = others.findIndex(({ pid }) => pid === who.peer.pid);
      await endAll(who);
      // The one that has it is the next to die.
      others.unshift(...others.splice(index, 1));
    }
  });
});

describe('a listener', () => {
  it('that is stopped is waited for until the deadline or the signal', OPTIONS, async (t) => {
    const name = uniqueName('stopped');
    const stopped = await startActor(t);
    await stopped.call('listen', name, SMALL);
    stopped.kill('SIGSTOP');
    assert.equal(await codeOf(connect(name, { timeoutMs: 100 })), 'ERR_UKSHM_TIMEOUT');
    const signal = AbortSignal.timeout(100);
    assert.equal(await codeOf(connect(name, { signal })), 'TimeoutError');
    const patient = connect(name, { timeoutMs: 20_000 });
    stopped.kill('SIGCONT');
    const channel = await patient;
    assert.equal(channel.peer.pid, stopped.pid);
    await endAll(channel);
  });

  it('hands out channels in a loop that ends when it is closed', OPTIONS, async (t) => {
    const listener = await listenFor(t, SMALL);
    const peers: number[] = [];
    const loop = (async () => {
      for await (const channel of listener) {
        peers.push(channel.peer.pid);
        await channel.close();
      }
    })();
    for (let i = 0; i < 3; i++) await endAll(await connect(listener.name));
    await until('three came', () => peers.length === 3);
    await listener.close();
    await loop;
    assert.deepEqual(peers, [process.pid, process.pid, process.pid]);
  });

  it('that is closed closes the channels that nobody took', OPTIONS, async (t) => {
    const listener = await listenFor(t, SMALL);
    const channels = await Promise.all([1, 2, 3].map(() => connect(listener.name)));
    await listener.close();
    for (const channel of channels) {
      assert.deepEqual(await channel.closed, { reason: 'peer-closed' });
      assert.equal(await channel.readable(), false);
    }
  });

  it('that is closed ends the meetings under way', OPTIONS, async (t) => {
    const listener = await listenFor(t, SMALL);
    const codes = Promise.all(
      Array.from({ length: 8 }, async () => {
        const channel = await connect(listener.name);
        const { reason } = await channel.closed;
        return reason;
      }).map((reason) => reason.catch((error) => error.code)),
    );
    await new Promise((resolve) => setImmediate(resolve));
    await listener.close();
    for (const code of await codes) {
      assert.match(code, /^(peer-closed|ERR_UKSHM_PEER_GONE|ERR_UKSHM_NO_LISTENER)$/);
    }
  });
});
