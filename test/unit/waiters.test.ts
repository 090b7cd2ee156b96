import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { unlessAborted, Waiters } from '../../src/channel/waiters.js';

/** Waits for `amount` of what `stock` holds. */
function take(stock: { left: number }, amount: number): () => number | undefined {
  return () => {
    if (stock.left < amount) return undefined;
    stock.left -= amount;
    return amount;
  };
}

describe('those who wait', () => {
  it('are served in order, and only while there is enough for the first', async () => {
    const waiters = new Waiters();
    const stock = { left: 0 };
    const served: number[] = [];
    for (const amount of [1, 5, 1]) {
      void waiters.wait(take(stock, amount), undefined).then((got) => served.push(got));
    }
    assert.equal(waiters.count, 3);
    assert.equal(waiters.serve(), false);
    stock.left = 3;
    assert.equal(waiters.serve(), true);
    assert.equal(waiters.serve(), false, 'the second waits for more, and so does the third');
    assert.equal(waiters.count, 2);
    stock.left = 6;
    waiters.serve();
    await Promise.resolve();
    assert.deepEqual(served, [1, 5, 1]);
    assert.equal(waiters.count, 0);
  });

  it('fail by what their own attempt throws, and hold nobody up', async () => {
    const waiters = new Waiters();
    const fails = waiters.wait(() => {
      throw new Error('of the attempt');
    }, undefined);
    const works = waiters.wait(() => 'done', undefined);
    assert.equal(waiters.serve(), true);
    await assert.rejects(fails, /of the attempt/);
    assert.equal(await works, 'done');
  });

  it('all fail when there is nothing more to wait for', async () => {
    const waiters = new Waiters();
    const { signal } = new AbortController();
    const waits = [undefined, signal].map((one) => waiters.wait(() => undefined, one));
    waiters.failAll(new Error('the end'));
    for (const wait of waits) await assert.rejects(wait, /the end/);
    assert.equal(waiters.count, 0);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });

  it('leave with the reason of their signal, before or after they came', async () => {
    const waiters = new Waiters();
    const reason = new Error('enough');
    await assert.rejects(
      waiters.wait(() => 1, AbortSignal.abort(reason)),
      reason,
    );
    assert.equal(waiters.count, 0);
    const controller = new AbortController();
    const wait = waiters.wait(() => undefined, controller.signal);
    controller.abort(reason);
    await assert.rejects(wait, reason);
    assert.equal(waiters.count, 0);
    assert.equal(waiters.serve(), false);
  });

  it('make room for those behind them when they leave', async () => {
    // The first waits for much; what there is would do for the second, and nobody will ring again.
    const waiters = new Waiters();
    const stock = { left: 1 };
    const controller = new AbortController();
    const much = waiters.wait(take(stock, 100), controller.signal);
    const little = waiters.wait(take(stock, 1), undefined);
    waiters.serve();
    controller.abort();
    await assert.rejects(much, { name: 'AbortError' });
    assert.equal(waiters.count, 0);
    assert.equal(await little, 1);
  });

  it('leave no listener on a signal that outlives them', async () => {
    const waiters = new Waiters();
    const controller = new AbortController();
    for (let i = 0; i < 3; i++) {
      const wait = waiters.wait(() => i, controller.signal);
      waiters.serve();
      assert.equal(await wait, i);
    }
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
    controller.abort();
  });

  it('may abort others while they are served', async () => {
    const waiters = new Waiters();
    const controller = new AbortController();
    const first = waiters.wait(() => {
      controller.abort();
      return 'first';
    }, undefined);
    const second = waiters.wait(() => 'second', controller.signal);
    const third = waiters.wait(() => 'third', undefined);
    waiters.serve();
    assert.equal(await first, 'first');
    await assert.rejects(second, { name: 'AbortError' });
    assert.equal(await third, 'third');
    assert.equal(waiters.count, 0);
  });
});

describe('unlessAborted', () => {
  it('is the promise, or the reason of the signal if that comes first', async () => {
    const { signal } = new AbortController();
    assert.equal(await unlessAborted(Promise.resolve(1), undefined), 1);
    assert.equal(await unlessAborted(Promise.resolve(2), signal), 2);
    await assert.rejects(unlessAborted(Promise.reject(new Error('own')), signal), /own/);
    const never = new Promise<number>(() => {});
    const reason = new Error('aborted');
    await assert.rejects(unlessAborted(never, AbortSignal.abort(reason)), reason);
    const controller = new AbortController();
    const wait = unlessAborted(never, controller.signal);
    controller.abort(reason);
    await assert.rejects(wait, reason);
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });
});
