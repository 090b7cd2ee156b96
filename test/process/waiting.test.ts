// Goal: whoever waits is woken by what it waits for, by its signal or by the end, and by nothing
// else; full and empty are results.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, listen, type Message } from '../../src/index.js';
import { codeOf, startActor, uniqueName } from './actors.js';
import { endAll, fill, isPending, nextOf, pairOf } from './local.js';
import { isPattern, pattern } from './pattern.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 262144, ringBytes: 4096 };

describe('a full channel', () => {
  for (const lengthBytes of [500, 50_000]) {
    it(
      `lets senders of ${lengthBytes} bytes wait, and serves them in order`,
      OPTIONS,
      async (t) => {
        const { near, far } = await pairOf(t, SMALL);
        const count = fill(near, lengthBytes);
        assert.ok(count >= 2 && count < 10, `it took ${count}`);
        assert.equal(near.trySend(pattern(lengthBytes, 0)), false);
        assert.equal(near.tryLoan(lengthBytes), undefined);
        const ids = [count, count + 1, count + 2];
        const sends = ids.map((id) => near.send(pattern(lengthBytes, id), { id }));
        const loan = near.loan(lengthBytes, { id: count + 3 });
        assert.ok(await isPending(Promise.race(sends)));
        assert.equal(near.stats().waitingSends, 4);
        // Nobody overtakes those who wait.
        assert.equal(near.trySend(new Uint8Array(0)), false);
        for (let id = 0; id < count + 3; id++) {
          const message = await nextOf(far);
          assert.equal(message.id, id);
          assert.ok(isPattern(message.bytes, id));
          message.release();
        }
        await Promise.all(sends);
        const last = await loan;
        last.bytes.set(pattern(lengthBytes, count + 3));
        last.send();
        const message = await nextOf(far);
        assert.ok(message.id === count + 3 && isPattern(message.bytes, count + 3));
      },
    );
  }

  it('gives a chunk back as soon as it is released, others being held', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const count = fill(near, 60_000);
    const held: Message[] = [];
    for (let i = 0; i < count; i++) held.push(await nextOf(far));
    const sent = near.send(pattern(60_000, 99), { id: 99 });
    assert.ok(await isPending(sent));
    held[1]?.release();
    await sent;
    const message = await nextOf(far);
    assert.ok(isPattern(message.bytes, 99));
    assert.ok(isPattern((held[0] as Message).bytes, 0), 'what is held is as it was');
  });

  it('takes on messages while very many chunks are held', OPTIONS, async (t) => {
    // A descriptor takes 32 bytes of the ring: 128 of them fill it, and each is read.
    const { near, far } = await pairOf(t, { arenaBytes: 4194304, ringBytes: 4096 });
    const held: Message[] = [];
    const reading = (async () => {
      for await (const message of far) held.push(message);
    })();
    for (let id = 0; id < 160; id++) await near.send(pattern(9000, id), { id });
    void near.close();
    await reading;
    assert.equal(held.length, 160);
    for (const message of held) {
      assert.ok(isPattern(message.bytes, message.id));
      message.release();
    }
  });

  it('bounds what is in flight, but two messages always fit', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, { inFlightBytes: 100_000 });
    assert.equal(fill(near, 1_000_000), 2);
    assert.equal(near.trySend(new Uint8Array(10_000)), false);
    assert.equal(fill(far, 1_000_000), 2);
    assert.ok(far.trySend(new Uint8Array(10_000)), 'the connector’s bound is its own: 2 MiB');
  });

  it('is woken between processes, by records and by space', OPTIONS, async (t) => {
    const name = uniqueName('woken');
    const child = await startActor(t);
    const listener = await listen(name, { ...SMALL, spinMicros: 0 });
    t.after(() => listener.close());
    await child.call('connect', name, 'c', { spinMicros: 0 });
    const channel = await listener.accept();
    t.after(() => endAll(channel));
    for (const lengthBytes of [500, 50_000]) {
      const count = fill(channel, lengthBytes);
      const sent = channel.send(pattern(lengthBytes, count), { id: count });
      assert.ok(await isPending(sent));
      const received = child.call('receive', 'c', count + 1);
      await sent;
      assert.ok((await received).every(({ right }) => right));
    }
    // Both sleep; each message wakes the one, and its answer the other.
    await child.call('echo', 'c');
    const before = channel.stats();
    for (let id = 0; id < 50; id++) {
      await sleep(1);
      await channel.send(pattern(100, id), { id });
      const message = await nextOf(channel);
      assert.ok(isPattern(message.bytes, id));
      message.release();
    }
    const { ringsSent, ringsReceived } = channel.stats();
    // Under load an answer may be there before the one who asked has fallen asleep.
    assert.ok(ringsSent - before.ringsSent >= 10, `${ringsSent} rings`);
    assert.ok(ringsReceived - before.ringsReceived >= 5, `${ringsReceived} rings`);
  });
});

describe('a signal', () => {
  it('ends every wait with its reason, and only that wait', OPTIONS, async (t) => {
    const { near, listener } = await pairOf(t, SMALL);
    fill(near, 60_000);
    fill(near, 500);
    const controller = new AbortController();
    const { signal } = controller;
    const reason = new Error('enough');
    const name = uniqueName('nobody');
    const waits = {
      'send, inline': near.send(new Uint8Array(500), { signal }),
      'send, chunk': near.send(new Uint8Array(60_000), { signal }),
      loan: near.loan(500, { signal }),
      readable: near.readable({ signal }),
      accept: listener.accept({ signal }),
      connect: connect(name, { wait: true, signal }),
    };
    for (const [what, wait] of Object.entries(waits)) assert.ok(await isPending(wait), what);
    controller.abort(reason);
    for (const [what, wait] of Object.entries(waits)) await assert.rejects(wait, reason, what);
    assert.equal(near.stats().waitingSends, 0);
    assert.deepEqual(getEventListeners(signal, 'abort'), [], 'no listener stays at the signal');
  });

  it('that was aborted before ends the wait at once', OPTIONS, async (t) => {
    const { near, listener } = await pairOf(t, SMALL);
    const signal = AbortSignal.abort();
    for (const wait of [
      near.send(new Uint8Array(1), { signal }),
      near.loan(1, { signal }),
      near.readable({ signal }),
      listener.accept({ signal }),
      connect(listener.name, { signal }),
      listen(uniqueName('aborted'), { signal }),
    ]) {
      assert.equal(await codeOf(wait), 'AbortError', 'the AbortError');
    }
    assert.equal(near.stats().ringBytesUsed, 0, 'nothing was sent');
  });

  it('leaves the others in their places', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const count = fill(near, 500);
    const controller = new AbortController();
    const first = near.send(pattern(500, count), { id: count });
    const second = near.send(new Uint8Array(500), { signal: controller.signal });
    const third = near.send(pattern(500, count + 1), { id: count + 1 });
    controller.abort();
    assert.equal(await codeOf(second), 'AbortError');
    for (let id = 0; id < count + 2; id++) {
      const message = await nextOf(far);
      assert.ok(message.id === id && isPattern(message.bytes, id));
      message.release();
    }
    await Promise.all([first, third]);
  });

  it('ends a close that waits for the peer, and the channel with it', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    await near.send(Buffer.from('never read'));
    const controller = new AbortController();
    const closing = near.close({ signal: controller.signal });
    assert.ok(await isPending(closing));
    controller.abort();
    assert.equal(await codeOf(closing), 'AbortError');
    assert.equal((await near.closed).reason, 'closed');
    assert.throws(() => near.trySend(new Uint8Array(1)), { code: 'ERR_UKSHM_CLOSED' });
    // The peer is told the truth: closed, not dead. What was published it can read.
    assert.equal((await far.closed).reason, 'peer-closed');
    assert.equal((await nextOf(far)).text(), 'never read');
  });

  it('closes a listener', OPTIONS, async () => {
    const controller = new AbortController();
    const listener = await listen(uniqueName('signal'), { signal: controller.signal });
    const accepting = listener.accept();
    controller.abort();
    assert.equal(await codeOf(accepting), 'ERR_UKSHM_CLOSED');
    assert.equal(await codeOf(connect(listener.name)), 'ERR_UKSHM_NO_LISTENER');
  });
});

describe('a process', () => {
  for (const end of ['listener', 'connector'] as const) {
    it(`ends although a ${end}’s channel is open, if that is unref’d`, OPTIONS, async (t) => {
      const name = uniqueName('unref');
      const [one, other] = await Promise.all([startActor(t), startActor(t)]);
      await one.call('listen', name);
      const accepted = one.call('accept', name, 'c');
      await other.call('connect', name, 'c');
      await accepted;
      const idle = end === 'listener' ? one : other;
      if (end === 'listener') await one.call('closeListener', name);
      await idle.call('leave');
      assert.ok(await isPending(idle.exited), 'an open channel keeps it alive');
      idle.kill();
      // The same, unref'd.
      const again = await startActor(t);
      const peer = end === 'listener' ? await startActor(t) : one;
      const at = end === 'listener' ? uniqueName('unref') : name;
      const [listening, connecting] = end === 'listener' ? [again, peer] : [peer, again];
      if (end === 'listener') await listening.call('listen', at);
      const second = listening.call('accept', at, 'd');
      await connecting.call('connect', at, 'd');
      await second;
      if (end === 'listener') await again.call('closeListener', at);
      await again.call('unref', 'd');
      await again.call('leave');
      const { status } = await again.exited;
      assert.equal(status, 0);
      assert.equal((await peer.call('closed', 'd')).code, 'ERR_UKSHM_PEER_GONE');
    });
  }
});
