// Goal: each request has one answer: its reply, the other side's error, or the end of the channel;
// whoever reads meanwhile, or nobody.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Channel, type Message, RemoteError } from '../../src/index.js';
import { codeOf } from './actors.js';
import { isPending, nextOf, pairOf } from './local.js';
import { isPattern, pattern } from './pattern.js';

const OPTIONS = { timeout: 30_000 };
const SMALL = { arenaBytes: 262144, ringBytes: 4096 };
/** On both sides of what is sent inline, and of a chunk. */
const SIZES = [0, 1, 8, 63, 64, 65, 4095, 8192, 8193, 100_000, 3_000_000];

/** Answers every request by its own bytes, from a turn of its own. */
async function echo(channel: Channel): Promise<void> {
  for await (const message of channel) {
    if (message.isRequest) await message.reply(message.bytes, { type: message.type });
    else message.release();
  }
}

describe('a request', () => {
  it('has its reply, of any size, with its type', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    void echo(far);
    for (const [i, size] of SIZES.entries()) {
      const reply = await near.request(pattern(size, i), { type: 16383 - i });
      assert.equal(reply.type, 16383 - i);
      assert.equal(reply.isRequest, false);
      assert.ok(isPattern(reply.bytes, i), `${size} bytes`);
      reply.release();
    }
    assert.equal(near.stats().heldChunks, 0);
    assert.equal(far.stats().heldChunks, 0);
  });

  it('may be one of many, answered in any order', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const replies = Array.from({ length: 100 }, (_, i) => near.request(pattern(50 * i, i)));
    const requests: Message[] = [];
    while (requests.length < 100) {
      await far.readable();
      far.drain((message) => requests.push(message.detach()));
    }
    for (const request of requests.reverse()) await request.reply(request.copy());
    for (const [i, reply] of (await Promise.all(replies)).entries()) {
      assert.ok(isPattern(reply.bytes, i));
      reply.release();
    }
  });

  it('waits while the ring is full, as its reply does', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    void echo(far);
    const asked = Array.from({ length: 2000 }, async (_, i) => {
      const reply = await near.request(pattern(400, i));
      assert.ok(isPattern(reply.bytes, i));
      reply.release();
    });
    await Promise.all(asked);
    assert.deepEqual([near.stats().ringBytesUsed, far.stats().ringBytesUsed], [0, 0]);
  });

  it('and its reply may be loans, sent in part', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    for (const size of [100, 200_000]) {
      const loan = await near.loan(size);
      loan.bytes.set(pattern(size, 1));
      const replied = near.request(loan, { lengthBytes: size - 50 });
      const request = await nextOf(far);
      assert.deepEqual(request.copy(), new Uint8Array(pattern(size, 1).subarray(0, size - 50)));
      const back = await far.loan(size);
      back.bytes.set(pattern(size, 2));
      await request.reply(back);
      const reply = await replied;
      assert.ok(isPattern(reply.bytes, 2));
      reply.release();
      assert.throws(() => loan.send(), { code: 'ERR_UKSHM_LOAN_USED' });
    }
    const foreign = await far.loan(10);
    assert.equal(await codeOf(near.request(foreign)), 'ERR_UKSHM_INVALID_ARGUMENT');
    foreign.discard();
  });

  it('rejects with the other side’s error', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asked = near.request(Buffer.from('?'));
    const request = await nextOf(far);
    request.refuse(Object.assign(new TypeError('no such\ntable'), { code: 'ERR_NO_TABLE' }));
    const error = await asked.catch((reason: unknown) => reason);
    assert.ok(error instanceof RemoteError);
    assert.equal(error.code, 'ERR_UKSHM_REMOTE');
    assert.deepEqual(
      [error.remoteName, error.remoteCode, error.message],
      ['TypeError', 'ERR_NO_TABLE', 'no such\ntable'],
    );
    for (const odd of [undefined, null, 'a string', 7, {}, 'x'.repeat(100_000)]) {
      const again = near.request(Buffer.from('?'));
      (await nextOf(far)).refuse(odd);
      assert.equal(await codeOf(again), 'ERR_UKSHM_REMOTE');
    }
  });

  const ignoring: Record<string, (channel: Channel) => Promise<void>> = {
    'for await': async (channel) => (await nextOf(channel)).release(),
    drain: async (channel) => {
      await channel.readable();
      channel.drain(() => {});
    },
    'a drain that throws': async (channel) => {
      await channel.readable();
      const thrown = new Error('of the handler');
      assert.throws(() => channel.drain(() => assert.fail(thrown)), thrown);
    },
    'a taken message': async (channel) => {
      await channel.readable();
      const kept: Message[] = [];
      channel.drain((message) => kept.push(message.take()));
      kept[0]?.release();
    },
  };
  for (const [name, ignore] of Object.entries(ignoring)) {
    it(`that is let go by ${name} rejects, and says so`, OPTIONS, async (t) => {
      const { near, far } = await pairOf(t);
      for (const size of [10, 50_000]) {
        const asked = near.request(pattern(size, 0));
        await ignore(far);
        const error = (await asked.catch((reason: unknown) => reason)) as RemoteError;
        assert.equal(error.remoteCode, 'ERR_UKSHM_NO_REPLY');
      }
    });
  }

  it('has one answer: a second one is refused here', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asked = near.request(Buffer.from('?'));
    const request = await nextOf(far);
    await request.reply(Buffer.from('!'));
    assert.equal(await codeOf(request.reply()), 'ERR_UKSHM_ALREADY_REPLIED');
    assert.throws(() => request.refuse(new Error()), { code: 'ERR_UKSHM_ALREADY_REPLIED' });
    (await asked).release();
    near.trySend(Buffer.from('no question'));
    const message = await nextOf(far);
    assert.equal(await codeOf(message.reply()), 'ERR_UKSHM_NOT_A_REQUEST');
    assert.equal(message.text(), 'no question', 'it is still held');
    message.release();
  });

  it('that cannot be answered with so much is still there to be answered', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const asked = near.request(Buffer.from('?'));
    const request = await nextOf(far);
    const long = request.reply(new Uint8Array(1_000_000));
    assert.equal(await codeOf(long), 'ERR_UKSHM_MESSAGE_TOO_LONG');
    await request.reply(Buffer.from('short'));
    const reply = await asked;
    assert.equal(reply.text(), 'short');
    reply.release();
  });

  it('cannot be forwarded', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const other = await pairOf(t);
    const asked = near.request(Buffer.from('?'));
    const request = await nextOf(far);
    assert.equal(await codeOf(request.forward(other.near)), 'ERR_UKSHM_CANNOT_FORWARD');
    await request.reply();
    (await asked).release();
  });

  it('is given up by its signal; a late reply harms nobody', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const gone = AbortSignal.abort(new Error('before'));
    await assert.rejects(near.request(Buffer.from('?'), { signal: gone }), /before/);
    const controller = new AbortController();
    const asked = near.request(Buffer.from('late'), { signal: controller.signal });
    const late = await nextOf(far);
    controller.abort(new Error('too late'));
    await assert.rejects(asked, /too late/);
    const next = near.request(Buffer.from('next'));
    await late.reply(new Uint8Array(50_000));
    void echo(far);
    const reply = await next;
    assert.equal(reply.text(), 'next');
    reply.release();
    await near.request(Buffer.alloc(1)).then((message) => message.release());
    assert.equal(far.stats().bytesLent, 0, 'the late reply was released');
  });
});

describe('messages before a reply', () => {
  it('wait, in order, for whoever reads the channel', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asked = near.request(Buffer.from('?'));
    const request = await nextOf(far);
    for (let i = 0; i < 40; i++) {
      assert.ok(far.trySend(pattern(i % 4 === 0 ? 20_000 : 30, i), { type: i, id: i }));
    }
    await request.reply(Buffer.from('!'));
    (await asked).release();
    far.trySend(pattern(5, 40), { type: 40, id: 40 });
    assert.equal(await near.readable(), true);
    const seen: number[] = [];
    const note = (message: Pick<Message, 'id' | 'type' | 'bytes'>): void => {
      assert.ok(isPattern(message.bytes, message.id));
      assert.equal(message.type, message.id);
      seen.push(message.id);
    };
    assert.equal(near.drain(note, 10), 10);
    const first = await nextOf(near);
    note(first);
    const kept: Message[] = [];
    near.drain((message) => {
      const target = new Uint8Array(message.lengthBytes);
      message.copyTo(target);
      assert.ok(isPattern(target, message.id));
      kept.push(message.take());
    }, 5);
    for (const message of kept) note(message);
    for (const message of [first, ...kept]) message.release();
    while (seen.length < 41) {
      const message = await nextOf(near);
      note(message);
      message.release();
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 41 }, (_, i) => i),
    );
    assert.equal(near.drain(note), 0);
    assert.deepEqual([near.stats().heldChunks, near.stats().heldInline], [0, 0]);
  });

  it('do not keep a reader from asking in the middle of its loop', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    const sent = (async () => {
      for (let i = 0; i < 300; i++) await far.send(pattern(500, i), { id: i });
      await far.close();
    })();
    const answers = (async () => {
      while (await far.readable()) {
        far.drain((message) => message.isRequest && void message.detach().reply());
      }
    })();
    let read = 0;
    for await (const message of near) {
      assert.equal(message.id, read++);
      assert.ok(isPattern(message.bytes, message.id));
      message.release();
      if (read % 50 === 0 && read < 250) (await near.request(Buffer.from('?'))).release();
    }
    assert.equal(read, 300);
    await Promise.all([sent, answers.catch(() => {})]);
  });

  it('are bounded: then the request rejects, and nothing is lost', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asked = near.request(Buffer.from('?'));
    const request = await nextOf(far);
    const flood = (async () => {
      for (let i = 0; i < 3000; i++) await far.send(pattern(8000, i), { id: i });
      await request.reply();
    })();
    assert.equal(await codeOf(asked), 'ERR_UKSHM_LIMIT');
    let read = 0;
    while (read < 3000 && (await near.readable())) {
      near.drain((message) => {
        assert.equal(message.id, read++);
        assert.ok(isPattern(message.bytes, message.id));
      });
    }
    await flood;
  });
});

describe('both sides of a channel', () => {
  it('may ask each other at the same time', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, SMALL);
    for (const channel of [near, far]) void echo(channel);
    const ask = async (channel: Channel): Promise<void> => {
      for (let i = 0; i < 300; i++) {
        const reply = await channel.request(pattern(300 + i, i));
        assert.ok(isPattern(reply.bytes, i));
        reply.release();
      }
    };
    await Promise.all([ask(near), ask(far), ask(near)]);
  });
});

describe('requests that wait for their replies', () => {
  it('reject at once when the other side closes', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asked = [1, 2, 3].map((size) => codeOf(near.request(new Uint8Array(size))));
    const request = await nextOf(far);
    await request.reply();
    const closed = far.close();
    assert.deepEqual(await Promise.all(asked), [
      'none',
      'ERR_UKSHM_PEER_CLOSED',
      'ERR_UKSHM_PEER_CLOSED',
    ]);
    await near.close();
    await closed;
  });

  it('reject at once when this side closes', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const asked = codeOf(near.request(Buffer.from('?')));
    const request = await nextOf(far);
    const closed = near.close();
    assert.equal(await asked, 'ERR_UKSHM_CLOSED');
    assert.equal(await codeOf(near.request(Buffer.from('?'))), 'ERR_UKSHM_CLOSED');
    assert.equal(await far.readable(), false);
    request.release();
    await closed;
  });

  it('are bounded in number', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    let rejected = 0;
    const count = 65_536;
    const controller = new AbortController();
    const { signal } = controller;
    for (let i = 0; i < count; i++) {
      near.request(new Uint8Array(0), { signal }).catch(() => rejected++);
      // Nobody answers, but what was sent is read.
      if (i % 1000 === 0) {
        await far.readable();
        far.drain((message) => void message.detach());
      }
    }
    await far.readable();
    far.drain((message) => void message.detach());
    const code = await codeOf(near.request(new Uint8Array(0)));
    assert.equal(code, 'ERR_UKSHM_LIMIT');
    controller.abort();
    assert.ok(await isPending(near.readable().then(() => {})));
    assert.equal(rejected, count);
  });
});
