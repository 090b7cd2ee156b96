import assert from 'node:assert/strict';
import { it } from 'node:test';
import { connect, listen } from '../../src/index.js';

// Goal: padding before the ring's end is no message, so whoever waits for one is not told of it.
// Method: one message at a time through a small ring, in sizes that leave every rest at its end.
it('a spin and a drain of one stay in step with the sender across the end of the ring', async () => {
  const listener = await listen(`padding-${process.pid}`, { ringBytes: 4096 });
  const [sender, receiver] = await Promise.all([
    listener.accept(),
    connect(`padding-${process.pid}`),
  ]);
  for (let i = 0; i < 20_000; i++) {
    assert.ok(sender.trySend(new Uint8Array((i * 37) % 500)));
    assert.ok(receiver.spin(1000));
    assert.equal(
      receiver.drain(() => {}, 1),
      1,
    );
    assert.equal(receiver.spin(0), false, 'nothing is left but perhaps padding');
  }
  await Promise.all([sender.close(), receiver.close(), listener.close()]);
});
