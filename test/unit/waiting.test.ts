// Goal: whoever waits for space gets it, also where the peer has no reason to ring.
// Method: both ends of a channel in this process; what one end does wakes the other by the event
// loop alone.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Channel } from '../../src/channel/channel.js';
import { connect } from '../../src/channel/meeting/connector.js';
import { type Listener, listen } from '../../src/channel/meeting/listener.js';

const ARENA = 2 ** 20;
/** Far more than any of this takes; a hang shows as a failure, not as a silence. */
const PATIENCE_MS = 20_000;

let listener: Listener;
before(async () => {
  listener = await listen(`unit-waiting-${process.pid}`);
});
after(() => listener.close());

async function meet(): Promise<[Channel, Channel]> {
  const sender = await connect(listener.name, {
    sendRingBytes: 4096,
    sendArenaBytes: ARENA,
    inFlightBytes: ARENA,
  });
  return [sender, await listener.accept()];
}

async function part(...ends: Channel[]): Promise<void> {
  await Promise.all(ends.map((end) => end.close({ signal: AbortSignal.abort() }).catch(() => {})));
}

async function inTime<T>(promise: Promise<T>): Promise<T> {
  const controller = new AbortController();
  const late = sleep(PATIENCE_MS, undefined, controller).then(() => {
    throw new Error('waited in vain');
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    controller.abort();
  }
}

describe('whoever waits for space', () => {
  it('gets what another loan of this side gives up', async () => {
    const [sender, receiver] = await meet();
    const first = sender.tryLoan(ARENA);
    assert.ok(first);
    const second = sender.loan(ARENA);
    await sleep(10);
    assert.equal(sender.stats().waitingSends, 1);
    first.discard();
    (await inTime(second)).discard();
    await part(sender, receiver);
  });

  it('lets the peer see first what was sent and not yet published', async () => {
    const [sender, receiver] = await meet();
    // Sizes that fill the ring exactly, and that end in padding, which is published by itself.
    for (const size of [248, 200]) {
      const bytes = new Uint8Array(size);
      const readSome = async (): Promise<number> => {
        assert.ok(await receiver.readable());
        return receiver.drain(() => {});
      };
      const reading = readSome();
      await sleep(10);
      let sent = 0;
      while (sender.trySend(bytes, { publish: false })) sent++;
      await inTime(sender.send(bytes));
      let read = await inTime(reading);
      while (read <= sent) read += await inTime(readSome());
      assert.equal(read, sent + 1);
    }
    await part(sender, receiver);
  });

  it('comes forward when the one before it leaves', async () => {
    const [sender, receiver] = await meet();
    const open = sender.tryLoan(ARENA / 2);
    assert.ok(open);
    const controller = new AbortController();
    const much = sender.loan(ARENA, { signal: controller.signal });
    const little = sender.loan(ARENA / 4);
    await sleep(10);
    controller.abort();
    await assert.rejects(much, { name: 'AbortError' });
    (await inTime(little)).discard();
    open.discard();
    await part(sender, receiver);
  });

  it('is woken by a release of part of a full ring, and by a whole drain', async () => {
    const [sender, receiver] = await meet();
    const bytes = new Uint8Array(248);
    for (const limit of [1, 2, 4, 8, 16]) {
      while (sender.trySend(bytes));
      const waiting = sender.send(bytes);
      await sleep(5);
      receiver.drain(() => {}, limit);
      await inTime(waiting);
    }
    await part(sender, receiver);
  });
});
