// Goal: whoever waits is woken by what it waits for, by its signal or by the end, and by nothing
// else; full and empty are results. Loans are in the sender's hands until they are sent.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Channel, connect, type Loan, listen, type Message } from '../../src/index.js';
import { codeOf, endAll, pairOf, startActor, uniqueName, until } from './actors.js';
import { isPattern, pattern } from './pattern.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 262144, ringBytes: 4096 };

/** Whether a promise has settled after all that is under way was done. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  const first = await Promise.race([promise.catch(() => {}), sleep(20).then(() => pending)]);
  return first === pending;
}

async function nextOf(channel: Channel): Promise<Message> {
  for await (const message of channel) return message;
  throw new Error('the channel ended');
}

/** Fills a channel with messages of this size; how many it took. */
function fill(channel: Channel, lengthBytes: number): number {
  let count = 0;
  while (channel.trySend(pattern(lengthBytes, count), { id: count })) count++;
  return count;
}

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

describe('a loan', () => {
  it(
    'of a chunk may be sent in any order; messages come in the order of sending',
    OPTIONS,
    async (t) => {
      const { near, far } = await pairOf(t);
      const loans = [10_000, 20_000, 30_000].map((lengthBytes, id) =>
        near.tryLoan(lengthBytes, { id }),
      );
      for (const id of [2, 0, 1]) {
        const loan = loans[id] as Loan;
        loan.bytes.set(pattern(loan.lengthBytes, id));
        loan.send();
      }
      for (const id of [2, 0, 1]) {
        const message = await nextOf(far);
        assert.equal(message.id, id);
        assert.ok(isPattern(message.bytes, id));
        message.release();
      }
    },
  );

  it('is sent or discarded once', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    for (const lengthBytes of [100, 100_000]) {
      const sent = near.tryLoan(lengthBytes) as Loan;
      sent.send();
      assert.throws(() => sent.send(), { code: 'ERR_UKSHM_LOAN_USED' });
      assert.throws(() => sent.discard(), { code: 'ERR_UKSHM_LOAN_USED' });
      const discarded = near.tryLoan(lengthBytes) as Loan;
      discarded.discard();
      discarded.discard();
      assert.throws(() => discarded.send(), { code: 'ERR_UKSHM_LOAN_USED' });
      const disposed = near.tryLoan(lengthBytes) as Loan;
      disposed[Symbol.dispose]();
      assert.throws(() => disposed.send(), { code: 'ERR_UKSHM_LOAN_USED' });
    }
    assert.equal(
      far.drain(() => {}),
      2,
      'what was discarded does not arrive',
    );
    await until('all came back', () => {
      near.trySend(new Uint8Array(0));
      far.drain(() => {});
      return near.stats().bytesLent === 0;
    });
  });

  it('of a small message is open alone', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const open = near.tryLoan(100, { id: 1 }) as Loan;
    for (const lengthBytes of [0, 100, 100_000]) {
      const bytes = new Uint8Array(lengthBytes);
      assert.throws(() => near.tryLoan(lengthBytes), { code: 'ERR_UKSHM_LOAN_OPEN' });
      assert.throws(() => near.trySend(bytes), { code: 'ERR_UKSHM_LOAN_OPEN' });
      assert.equal(await codeOf(near.send(bytes)), 'ERR_UKSHM_LOAN_OPEN');
    }
    open.bytes.set(pattern(100, 1));
    open.send();
    assert.ok(near.trySend(pattern(50, 2), { id: 2 }));
    for (const id of [1, 2]) {
      const message = await nextOf(far);
      assert.ok(message.id === id && isPattern(message.bytes, id));
      message.release();
    }
  });

  it('may be sent shorter, not longer', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    for (const lengthBytes of [100, 100_000]) {
      const loan = near.tryLoan(lengthBytes) as Loan;
      for (const wrong of [lengthBytes + 1, -1, 0.5]) {
        assert.throws(() => loan.send({ lengthBytes: wrong }), {
          code: 'ERR_UKSHM_INVALID_ARGUMENT',
        });
      }
      loan.bytes.set(Buffer.from('short'));
      loan.send({ lengthBytes: 5 });
      const message = await nextOf(far);
      assert.equal(message.text(), 'short');
      message.release();
    }
  });

  it('is seen by the peer when it is published, together with others', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const small = near.tryLoan(10, { id: 1 }) as Loan;
    small.send({ publish: false });
    assert.ok(near.trySend(new Uint8Array(10), { id: 2, publish: false }));
    (near.tryLoan(50_000, { id: 3 }) as Loan).send({ publish: false });
    assert.equal(
      far.drain(() => {}),
      0,
    );
    assert.equal(await codeOf(far.readable({ signal: AbortSignal.timeout(30) })), 'TimeoutError');
    near.publish();
    const ids: number[] = [];
    assert.equal(await far.readable(), true);
    far.drain(({ id }) => ids.push(id));
    assert.deepEqual(ids, [1, 2, 3]);
  });
});

describe('closing', () => {
  it('resolves when the peer has drained, waiting sends included', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const count = fill(near, 500);
    const waiting = near.send(pattern(500, count), { id: count });
    const closing = near.close();
    assert.equal(near.close(), closing, 'the same promise: idempotent');
    assert.equal(await codeOf(near.send(new Uint8Array(1))), 'ERR_UKSHM_CLOSED');
    assert.ok(await isPending(closing));
    const messages: Message[] = [];
    for (let id = 0; id <= count; id++) {
      const message = await nextOf(far);
      assert.ok(message.id === id && isPattern(message.bytes, id));
      if (id < count) message.release();
      else messages.push(message);
    }
    await waiting;
    assert.ok(await isPending(closing), 'the last message is held');
    assert.equal(await far.readable(), false, 'no more comes');
    messages[0]?.release();
    await closing;
    assert.deepEqual(await near.closed, { reason: 'closed' });
    assert.deepEqual(await far.closed, { reason: 'peer-closed' });
    await far.close();
    assert.throws(() => near.drain(() => {}), { code: 'ERR_UKSHM_CLOSED' });
  });

  it('resolves also behind padding that no message follows', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    // Records of 408 bytes do not divide the ring: the last that fails pads its end.
    assert.equal(fill(near, 400), 10);
    const closing = near.close();
    let count = 0;
    for await (const message of far) {
      count++;
      message.release();
    }
    assert.equal(count, 10);
    await closing;
  });

  it('from both sides at once ends both', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    fill(near, 500);
    fill(far, 50_000);
    await Promise.all([near.close(), far.close()]);
    assert.match((await near.closed).reason, /closed/);
    assert.match((await far.closed).reason, /closed/);
  });

  it('makes what was received fail, not lie', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    await near.send(pattern(100, 0));
    await near.send(pattern(100_000, 1));
    const held = [await nextOf(far), await nextOf(far)];
    const loan = far.tryLoan(100_000) as Loan;
    await far.close();
    for (const message of held) {
      assert.throws(() => message.bytes, { code: 'ERR_UKSHM_CLOSED' });
      assert.throws(() => message.text(), { code: 'ERR_UKSHM_CLOSED' });
      message.release();
    }
    assert.throws(() => loan.send(), { code: 'ERR_UKSHM_CLOSED' });
    loan.discard();
    assert.equal(await codeOf(far.readable()), 'ERR_UKSHM_CLOSED');
    assert.throws(() => far.tryLoan(1), { code: 'ERR_UKSHM_CLOSED' });
  });

  it('is the end for a reader of the same side that waits', OPTIONS, async (t) => {
    const { far } = await pairOf(t);
    const reading = far.readable();
    await far.close();
    assert.equal(await reading, false);
  });

  it('at once tells the peer no lie: it is closed, not gone', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    await near.send(pattern(100, 0));
    await endAll(near);
    assert.deepEqual(await far.closed, { reason: 'peer-closed' });
    assert.equal(await codeOf(far.send(new Uint8Array(1))), 'ERR_UKSHM_PEER_CLOSED');
    assert.equal(await codeOf(near.send(new Uint8Array(1))), 'ERR_UKSHM_CLOSED');
    assert.ok(isPattern((await nextOf(far)).bytes, 0), 'what was published is delivered');
    assert.equal(await far.readable(), false);
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
