// Goal: a loan is in the sender's hands until it is sent, once; closing loses nothing and lies to
// nobody.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Loan, Message } from '../../src/index.js';
import { codeOf, until } from './actors.js';
import { endAll, fill, isPending, nextOf, pairOf } from './local.js';
import { isPattern, pattern } from './pattern.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 262144, ringBytes: 4096 };

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
