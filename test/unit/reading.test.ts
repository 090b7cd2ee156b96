// Goal: no use of a channel's reading side, however wrong, loses a message or spoils the ring.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Channel } from '../../src/channel/channel.js';
import { connect } from '../../src/channel/meeting/connector.js';
import { type Listener, listen } from '../../src/channel/meeting/listener.js';
import type { Message } from '../../src/channel/message.js';
import { throwsCode } from './rings.js';

const LARGE = 100_000;

let listener: Listener;
before(async () => {
  listener = await listen(`unit-reading-${process.pid}`);
});
after(() => listener.close());

/** A channel through which messages of these lengths came, each filled with its number. */
async function received(...lengths: number[]): Promise<[Channel, Channel]> {
  const sender = await connect(listener.name);
  const receiver = await listener.accept();
  for (const [i, length] of lengths.entries()) await sender.send(new Uint8Array(length).fill(i));
  assert.ok(await receiver.readable());
  return [sender, receiver];
}

/** The channel still works in full: a whole ring goes through, and everything comes back. */
async function works(sender: Channel, receiver: Channel): Promise<void> {
  for (let i = 0; i < 3; i++) {
    while (sender.trySend(new Uint8Array(5000)));
    while (receiver.drain(() => {}) > 0);
  }
  const { heldInline, heldChunks } = receiver.stats();
  assert.deepEqual([heldInline, heldChunks], [0, 0]);
  assert.deepEqual([sender.stats().ringBytesUsed, sender.stats().bytesLent], [0, 0]);
  await Promise.all([sender.close(), receiver.close()]);
}

describe('a message kept from a drain', () => {
  for (const [name, length] of [
    ['small', 10],
    ['large', LARGE],
  ] as const) {
    it(`that is ${name} can be taken once`, async () => {
      const [sender, receiver] = await received(length, length);
      const kept: Message[] = [];
      receiver.drain((cursor) => {
        kept.push(cursor.take());
        throwsCode('ERR_UKSHM_MESSAGE_RELEASED', () => cursor.take(), /taken before/);
      });
      for (const message of kept) assert.equal(message.lengthBytes, length);
      for (const message of kept.reverse()) message.release();
      for (const message of kept) message.release();
      await works(sender, receiver);
    });
  }

  it('cannot be taken behind the drain', async () => {
    const [sender, receiver] = await received(10, LARGE);
    const cursors = new Set<{ take(): Message }>();
    receiver.drain((cursor) => cursors.add(cursor));
    for (const cursor of cursors) throwsCode('ERR_UKSHM_MESSAGE_RELEASED', () => cursor.take());
    await works(sender, receiver);
  });

  it('says that it was released when it is read after that', async () => {
    const [sender, receiver] = await received(10, LARGE);
    const kept: Message[] = [];
    receiver.drain((cursor) => kept.push(cursor.take()));
    for (const message of kept) {
      message.release();
      for (const use of [() => message.bytes, () => message.text(), () => message.copy()]) {
        throwsCode('ERR_UKSHM_MESSAGE_RELEASED', use, /was released/);
      }
    }
    await works(sender, receiver);
  });
});

describe('reading inside the handler of a drain', () => {
  it('is refused: a second drain', async () => {
    const [sender, receiver] = await received(1, 2, 3);
    const lengths: number[] = [];
    receiver.drain(({ lengthBytes }) => {
      lengths.push(lengthBytes);
      throwsCode('ERR_UKSHM_BUSY', () => receiver.drain(() => {}));
    });
    assert.deepEqual(lengths, [1, 2, 3]);
    await works(sender, receiver);
  });

  it('is refused: an iterator', async () => {
    const [sender, receiver] = await received(1, 2, 3);
    const lengths: number[] = [];
    const refused: Promise<unknown>[] = [];
    receiver.drain(({ lengthBytes }) => {
      lengths.push(lengthBytes);
      const next = receiver[Symbol.asyncIterator]().next();
      refused.push(assert.rejects(next, { code: 'ERR_UKSHM_BUSY' }));
    });
    await Promise.all(refused);
    assert.deepEqual(lengths, [1, 2, 3]);
    await works(sender, receiver);
  });

  it('may throw: that message counts as read, and the others wait', async () => {
    const [sender, receiver] = await received(1, LARGE, 3);
    const lengths: number[] = [];
    const handler = ({ lengthBytes }: { lengthBytes: number }): void => {
      lengths.push(lengthBytes);
      throw new Error('of the handler');
    };
    for (let i = 0; i < 3; i++) assert.throws(() => receiver.drain(handler), /of the handler/);
    assert.equal(receiver.drain(handler), 0);
    assert.deepEqual(lengths, [1, LARGE, 3]);
    await works(sender, receiver);
  });
});
