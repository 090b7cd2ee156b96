// Goal: whoever is behind gets what its policy says, and every gap is counted.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type SubscribeOptions, subscribe } from '../../src/patterns/topic/index.js';
import { codeOf } from './actors.js';
import { isPending } from './local.js';
import { isPattern, pattern } from './pattern.js';
import {
  hold,
  LARGE,
  numbers,
  publish,
  SMALL,
  subscriptionFor,
  take,
  takeMany,
  topicFor,
} from './topics.js';

const OPTIONS = { timeout: 30_000 };

describe('a subscriber that is behind', () => {
  for (const lengthBytes of [SMALL, LARGE]) {
    it(`loses the newest: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t);
      const slow = await subscriptionFor(t, topic.name, { slow: 'drop-newest', depth: 3 });
      const other = await subscriptionFor(t, topic.name);
      const [held] = await Promise.all([hold(slow, 2), publish(topic, lengthBytes, 7)]);
      assert.deepEqual(await takeMany(other, 7), numbers(0, 7));
      held[0]?.release();
      // One is free again: what comes now is taken, and the next tells of the gap.
      await publish(topic, lengthBytes, 2);
      held[1]?.release();
      assert.deepEqual(await takeMany(slow, 2), [
        [2, 0],
        [7, 4],
      ]);
      await publish(topic, lengthBytes, 1);
      assert.deepEqual(await takeMany(slow, 1), [[9, 1]]);
      const [stats] = topic.subscribers;
      assert.deepEqual([stats?.dropped, stats?.sent, slow.missed], [5, 5, 5]);
    });

    it(
      `loses the oldest that it has not begun to read: ${lengthBytes} bytes`,
      OPTIONS,
      async (t) => {
        const topic = await topicFor(t);
        const slow = await subscriptionFor(t, topic.name, { slow: 'drop-oldest', depth: 3 });
        await publish(topic, lengthBytes, 20);
        const [before] = topic.subscribers;
        assert.deepEqual([before?.outstanding, before?.queued, before?.dropped], [3, 3, 14]);
        const seen = await takeMany(slow, 6);
        assert.deepEqual(seen, [...numbers(0, 3), [17, 14], [18, 0], [19, 0]]);
        await publish(topic, lengthBytes, 1);
        assert.deepEqual(await takeMany(slow, 1), [[20, 0]]);
      },
    );

    it(`is disconnected behind what it was sent: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t);
      const { freeBytes } = topic.stats();
      const slow = await subscriptionFor(t, topic.name, { slow: 'disconnect', depth: 3 });
      const other = await subscriptionFor(t, topic.name);
      await publish(topic, lengthBytes, 5);
      assert.equal(topic.subscribers.length, 1);
      const seen: number[] = [];
      const reading = (async () => {
        for await (const message of slow) {
          assert.ok(isPattern(message.bytes, message.sequence));
          seen.push(message.sequence);
          message.release();
        }
      })();
      assert.equal(await codeOf(reading), 'ERR_UKSHM_TOO_SLOW');
      assert.deepEqual(seen, [0, 1, 2]);
      assert.equal(slow.missed, 1, 'the one for which it was too slow');
      assert.equal(await codeOf(slow.readable()), 'ERR_UKSHM_TOO_SLOW');
      assert.equal((await slow.closed).reason, 'peer-closed');
      assert.deepEqual(await takeMany(other, 5), numbers(0, 5));
      void topic.subscribers;
      assert.equal(topic.stats().freeBytes, freeBytes);
    });

    it(`blocks where that is allowed: ${lengthBytes} bytes`, OPTIONS, async (t) => {
      const topic = await topicFor(t, { mayBlock: true });
      const slow = await subscriptionFor(t, topic.name, { slow: 'block', depth: 3 });
      const other = await subscriptionFor(t, topic.name, { slow: 'drop-newest' });
      await publish(topic, lengthBytes, 3);
      assert.equal(topic.tryPublish(pattern(lengthBytes, 3)), false);
      const signal = AbortSignal.timeout(30);
      assert.equal(
        await codeOf(topic.publish(pattern(lengthBytes, 3), { signal })),
        'TimeoutError',
      );
      assert.equal(topic.sequence, 3);
      const loan = await topic.loan(lengthBytes);
      loan.bytes.set(pattern(lengthBytes, 3));
      assert.equal(loan.tryPublish(), false);
      const waiting = loan.publish();
      const behind = topic.publish(pattern(lengthBytes, 4));
      assert.ok(await isPending(waiting));
      assert.equal(topic.stats().waiting, 2);
      assert.deepEqual(take(other), numbers(0, 3), 'nobody is sent what blocks');
      assert.deepEqual(take(slow), numbers(0, 3));
      await Promise.all([waiting, behind]);
      assert.deepEqual(await takeMany(slow, 2), numbers(3, 2));
      assert.deepEqual(await takeMany(other, 2), numbers(3, 2));
      // Whoever blocks and goes, blocks no more.
      await publish(topic, lengthBytes, 3);
      const last = publish(topic, lengthBytes);
      assert.ok(await isPending(last));
      await slow.close();
      await last;
    });
  }

  it('may not block where nobody said so', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    assert.equal(await codeOf(subscribe(topic.name, { slow: 'block' })), 'ERR_UKSHM_MAY_NOT_BLOCK');
    const wrong = { slow: 'sometimes' } as unknown as SubscribeOptions;
    assert.equal(await codeOf(subscribe(topic.name, wrong)), 'ERR_UKSHM_INVALID_ARGUMENT');
    assert.equal(await codeOf(subscribe(topic.name, { depth: 0 })), 'ERR_UKSHM_INVALID_ARGUMENT');
    assert.equal(topic.subscribers.length, 0);
  });

  it('keeps order where small and large ones wait together', OPTIONS, async (t) => {
    const topic = await topicFor(t);
    const slow = await subscriptionFor(t, topic.name, { depth: 5 });
    let total = 0;
    const reading = (async () => {
      let next = 0;
      for await (const message of slow) {
        assert.ok(isPattern(message.bytes, message.sequence));
        assert.equal(message.sequence, (next + message.missed) >>> 0);
        next = message.sequence + 1;
        total += 1 + message.missed;
        if (message.sequence % 7 === 0) await sleep(1);
        message.release();
      }
    })();
    for (let i = 0; i < 500; i++) {
      await publish(topic, [SMALL, LARGE, 9000, 0, 8192][i % 5] ?? 0);
      if (i % 11 === 0) await sleep(1);
    }
    await topic.close();
    await reading;
    assert.equal(total, 500);
  });
});
