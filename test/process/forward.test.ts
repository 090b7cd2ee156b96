// Goal: O → M → T: the third process reads in place what the first wrote, and whoever of the three
// dies or leaves at whatever moment, the others lose nothing that they hold and keep nothing that
// they do not.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Actor, codeOf, startActor, uniqueName, until } from './actors.js';

const OPTIONS = { timeout: 30_000 };
const SIZES = { arenaBytes: 1048576, ringBytes: 65536 };
/** One message that travels inside the ring, and one that travels as a chunk. */
const LENGTHS = [500, 60_000];

interface Three {
  readonly o: Actor;
  readonly m: Actor;
  readonly t: Actor;
  readonly atO: string;
  readonly atM: string;
}

/** O listens and accepts M (`m` at O, `o` at M); M listens and accepts T (`t` at M, `m` at T). */
async function threeOf(context: TestContext, access: object = {}): Promise<Three> {
  const atO = uniqueName('forward-o');
  const atM = uniqueName('forward-m');
  const [o, m, t] = await Promise.all([1, 2, 3].map(() => startActor(context)));
  if (o === undefined || m === undefined || t === undefined) throw new Error('no actors');
  const allowed = 'pids' in access ? { access: { pids: [m.pid] } } : {};
  await Promise.all([
    o.call('listen', atO, { ...SIZES, ...allowed }),
    m.call('listen', atM, SIZES),
  ]);
  await Promise.all([
    o.call('accept', atO, 'm'),
    m.call('connect', atO, 'o'),
    m.call('accept', atM, 't'),
    t.call('connect', atM, 'm'),
  ]);
  return { o, m, t, atO, atM };
}

interface Stats {
  readonly bytesLent: number;
  readonly chunksLent: number;
  readonly ringBytesUsed: number;
  readonly heldInline: number;
  readonly heldChunks: number;
  readonly waitingSends: number;
}

async function statsOf(actor: Actor, on: string): Promise<Stats> {
  return (await actor.call('stats', on)) as Stats;
}

async function expectNothingLent(actor: Actor, on: string): Promise<void> {
  await until('everything came back', async () => {
    const { bytesLent, chunksLent } = await statsOf(actor, on);
    return bytesLent === 0 && chunksLent === 0;
  });
}

async function expectUnmapped(actor: Actor, memfds: number): Promise<void> {
  await until(`${memfds} outboxes are mapped`, async () => {
    return (await actor.call('usage')).memfds === memfds;
  });
}

/** O sends to M, and M hands it on to T, which holds it. */
async function handOn({ o, m, t }: Three, lengthBytes: number, id: number): Promise<void> {
  await o.call('send', 'm', lengthBytes, id, 7);
  await m.call('hold', 'o', `m${id}`);
  await m.call('forward', `m${id}`, 't');
  const told = await t.call('hold', 'm', `t${id}`);
  assert.deepEqual(told, { lengthBytes, type: 7, id, right: true });
}

describe('a message that is handed on', () => {
  it('arrives whole and in order, and comes back to its owner', OPTIONS, async (context) => {
    const three = await threeOf(context);
    const { o, m, t } = three;
    const sizes = [0, 1, 100, 8192, 8193, 65536, 300_000];
    await m.call('forwardAll', 'o', 't');
    const received = t.call('receive', 'm', sizes.length * 20);
    for (let round = 0; round < 20; round++) {
      for (const [i, lengthBytes] of sizes.entries()) {
        await o.call('send', 'm', lengthBytes, round * sizes.length + i);
      }
    }
    for (const [index, { id, lengthBytes, right }] of (await received).entries()) {
      assert.deepEqual(
        { id, lengthBytes, right },
        { id: index, lengthBytes: sizes[index % sizes.length], right: true },
      );
    }
    await expectNothingLent(o, 'm');
    const { heldInline, heldChunks } = await statsOf(m, 'o');
    assert.deepEqual({ heldInline, heldChunks }, { heldInline: 0, heldChunks: 0 });
    // T maps its own outbox, M's and O's; M maps four.
    await expectUnmapped(t, 3);
    await expectUnmapped(m, 4);
  });

  it('comes back when T releases it, not before, in whatever order', OPTIONS, async (context) => {
    const three = await threeOf(context);
    const { o, t } = three;
    for (const id of [0, 1, 2]) await handOn(three, 60_000, id);
    assert.equal((await statsOf(o, 'm')).chunksLent, 3);
    for (const [id, left] of [
      [1, 2],
      [2, 1],
      [0, 0],
    ] as const) {
      assert.ok((await t.call('look', `t${id}`)).right);
      await t.call('release', `t${id}`);
      await until('its owner has it', async () => (await statsOf(o, 'm')).chunksLent === left);
    }
  });

  it('is handed on once', OPTIONS, async (context) => {
    const three = await threeOf(context);
    const { m, t } = three;
    const further = uniqueName('further');
    await m.call('listen', further);
    await Promise.all([m.call('accept', further, 'back'), t.call('connect', further, 'm2')]);
    for (const lengthBytes of LENGTHS) {
      await handOn(three, lengthBytes, 1);
      assert.equal(await codeOf(t.call('forward', 't1', 'm2')), 'ERR_UKSHM_CANNOT_FORWARD');
      assert.ok((await t.call('look', 't1')).right, 'T holds it still');
      await t.call('release', 't1');
    }
  });

  it('is not handed on to whom its owner does not admit; M holds it still', OPTIONS, async (c) => {
    const { o, m, t } = await threeOf(c, { pids: [] });
    for (const lengthBytes of LENGTHS) {
      await o.call('send', 'm', lengthBytes, 3);
      await m.call('hold', 'o', 'h');
      assert.equal(await codeOf(m.call('forward', 'h', 't')), 'ERR_UKSHM_CANNOT_FORWARD');
      assert.ok((await m.call('look', 'h')).right);
      await m.call('release', 'h');
      await m.call('send', 't', lengthBytes, 4);
      const [told] = await t.call('receive', 'm', 1);
      assert.ok(told?.right, 'a copy can be sent');
    }
    await expectNothingLent(o, 'm');
  });

  it('needs a listener of its owner: forwardVia names it', OPTIONS, async (context) => {
    const [o, m, t] = await Promise.all([1, 2, 3].map(() => startActor(context)));
    if (o === undefined || m === undefined || t === undefined) throw new Error('no actors');
    const atM = uniqueName('via-m');
    const atO = uniqueName('via-o');
    await Promise.all([m.call('listen', atM, SIZES), o.call('listen', atO, SIZES)]);
    await Promise.all([m.call('accept', atM, 'plain'), o.call('connect', atM, 'plain')]);
    await Promise.all([m.call('accept', atM, 'via'), o.call('connectVia', atM, 'via', atO)]);
    await Promise.all([m.call('accept', atM, 't'), t.call('connect', atM, 'm')]);
    for (const lengthBytes of LENGTHS) {
      await o.call('send', 'plain', lengthBytes, 1);
      await m.call('hold', 'plain', 'h');
      assert.equal(await codeOf(m.call('forward', 'h', 't')), 'ERR_UKSHM_CANNOT_FORWARD');
      await m.call('release', 'h');
      await o.call('send', 'via', lengthBytes, 2);
      await m.call('hold', 'via', 'h');
      await m.call('forward', 'h', 't');
      const [told] = await t.call('receive', 'm', 1);
      assert.ok(told?.right);
    }
    await expectNothingLent(o, 'via');
  });

  it('may go back to whom it came from', OPTIONS, async (context) => {
    const { o, m } = await threeOf(context);
    for (const lengthBytes of LENGTHS) {
      await o.call('send', 'm', lengthBytes, 6);
      await m.call('hold', 'o', 'h');
      await m.call('forward', 'h', 'o');
      const told = await o.call('hold', 'm', 'back');
      assert.deepEqual(told, { lengthBytes, type: 0, id: 6, right: true });
      await o.call('release', 'back');
      await expectNothingLent(o, 'm');
    }
    await Promise.all([m.call('close', 'o'), o.call('closed', 'm')]);
    await expectUnmapped(o, 0);
  });

  it('waits for a stopped T no longer than its signal says', OPTIONS, async (context) => {
    const { o, m, t } = await threeOf(context);
    await o.call('send', 'm', 60_000, 1);
    await m.call('hold', 'o', 'h');
    t.kill('SIGSTOP');
    assert.equal(await codeOf(m.call('forward', 'h', 't', 200)), 'TimeoutError');
    assert.ok((await m.call('look', 'h')).right, 'M holds it still');
    t.kill('SIGCONT');
    await m.call('forward', 'h', 't');
    const [told] = await t.call('receive', 'm', 1);
    assert.ok(told?.right);
  });
});

describe('when M dies', () => {
  for (const lengthBytes of LENGTHS) {
    it(`T keeps what it holds: ${lengthBytes} bytes`, OPTIONS, async (context) => {
      const three = await threeOf(context);
      const { o, m, t, atO } = three;
      await handOn(three, lengthBytes, 0);
      // Published to T, not read yet.
      await o.call('send', 'm', lengthBytes, 1);
      await m.call('hold', 'o', 'm1');
      await m.call('forward', 'm1', 't');
      // With M only, and on the way to M: these are lost.
      await o.call('send', 'm', lengthBytes, 2);
      await m.call('hold', 'o', 'm2');
      await o.call('send', 'm', lengthBytes, 3);
      const closed = o.call('closed', 'm');
      m.kill();
      assert.equal((await closed).code, 'ERR_UKSHM_PEER_GONE');
      await expectNothingLent(o, 'm');
      await expectUnmapped(o, 0);
      // O goes on serving others, in other memory.
      await Promise.all([o.call('accept', atO, 't'), t.call('connect', atO, 'o')]);
      for (let id = 10; id < 200; id++) {
        await o.call('send', 't', lengthBytes, id);
        const [told] = await t.call('receive', 'o', 1);
        assert.ok(told?.right && told.id === id);
      }
      assert.ok((await t.call('look', 't0')).right, 'what T held is as it was');
      const rest = await t.call('hold', 'm', 't1');
      assert.deepEqual({ id: rest.id, right: rest.right }, { id: 1, right: true });
      assert.equal(await codeOf(t.call('hold', 'm', 'none')), 'ERR_UKSHM_PEER_GONE');
      await t.call('release', 't0');
      await sleep(50);
      assert.ok((await t.call('look', 't1')).right);
      await t.call('release', 't1');
      // With the last of them T unmaps M's outbox and O's old one; its channel to O has two.
      await expectUnmapped(t, 2);
    });
  }

  it('while T maps what M asked it to, T ends that', OPTIONS, async (context) => {
    const { o, m, t } = await threeOf(context);
    const before = await t.call('usage');
    await o.call('send', 'm', 60_000, 1);
    await m.call('hold', 'o', 'h');
    // A stopped O keeps T's import where it is.
    o.kill('SIGSTOP');
    void m.call('forward', 'h', 't');
    await until('T is at it', async () => {
      return (await t.call('usage')).fds.length > before.fds.length;
    });
    m.kill();
    assert.equal((await t.call('closed', 'm')).code, 'ERR_UKSHM_PEER_GONE');
    o.kill('SIGCONT');
    await expectUnmapped(t, 0);
    await until('its descriptors are closed', async () => {
      const { fds } = await t.call('usage');
      return fds.every((fd) => !fd.includes('memfd')) && fds.length < before.fds.length;
    });
    assert.equal((await o.call('closed', 'm')).code, 'ERR_UKSHM_PEER_GONE');
    await expectNothingLent(o, 'm');
  });

  it('again and again, under full load, nothing is wrong or left', OPTIONS, async (context) => {
    const atO = uniqueName('again-o');
    const atT = uniqueName('again-t');
    const [o, t] = await Promise.all([startActor(context), startActor(context)]);
    await Promise.all([o.call('listen', atO, SIZES), t.call('listen', atT, SIZES)]);
    for (let round = 0; round < 5; round++) {
      const m = await startActor(context);
      await Promise.all([
        o.call('accept', atO, `m${round}`),
        m.call('connect', atO, 'o'),
        t.call('accept', atT, `m${round}`),
        m.call('connect', atT, 't'),
      ]);
      const flooded = o.call('flood', `m${round}`, round % 2 === 0 ? 30_000 : 700);
      await m.call('forwardAll', 'o', 't');
      const [first] = await t.call('receive', `m${round}`, 1);
      const received = t.call('receiveAll', `m${round}`, 1);
      await sleep(10 + round * 20);
      m.kill();
      const { code } = await flooded;
      assert.equal(code, 'ERR_UKSHM_PEER_GONE');
      const all = await received;
      assert.deepEqual({ right: all.right, code: all.code }, { right: true, code });
      assert.ok(first?.right && first.id === 0);
      await expectNothingLent(o, `m${round}`);
    }
    await expectUnmapped(o, 0);
    await expectUnmapped(t, 0);
  });
});

describe('when T dies', () => {
  it('what M handed on to it is its owner’s again', OPTIONS, async (context) => {
    const three = await threeOf(context);
    const { o, m, t } = three;
    await handOn(three, 60_000, 0);
    await handOn(three, 500, 1);
    const closed = m.call('closed', 't');
    t.kill();
    assert.equal((await closed).code, 'ERR_UKSHM_PEER_GONE');
    await expectNothingLent(o, 'm');
    assert.equal((await statsOf(m, 'o')).heldInline, 0);
    // M and O go on.
    await o.call('send', 'm', 60_000, 5);
    await m.call('hold', 'o', 'h');
    assert.equal(await codeOf(m.call('forward', 'h', 't')), 'ERR_UKSHM_PEER_GONE');
    assert.ok((await m.call('look', 'h')).right, 'M holds it still');
    await m.call('release', 'h');
    await expectNothingLent(o, 'm');
  });

  it('while M waits for its import, M is told', OPTIONS, async (context) => {
    const { o, m, t } = await threeOf(context);
    await o.call('send', 'm', 60_000, 1);
    await m.call('hold', 'o', 'h');
    t.kill('SIGSTOP');
    const forwarded = m.call('forward', 'h', 't');
    await m.call('sleep', 50);
    t.kill();
    assert.equal(await codeOf(forwarded), 'ERR_UKSHM_PEER_GONE');
    assert.ok((await m.call('look', 'h')).right);
  });
});

describe('when many a T comes and goes', () => {
  it('M keeps nothing of them, however long O stays', OPTIONS, async (context) => {
    const { o, m, t, atM } = await threeOf(context);
    const round = async (id: number): Promise<void> => {
      await Promise.all([m.call('accept', atM, `t${id}`), t.call('connect', atM, `m${id}`)]);
      await o.call('send', 'm', 20_000, id);
      await m.call('hold', 'o', 'h');
      await m.call('forward', 'h', `t${id}`);
      const [told] = await t.call('receive', `m${id}`, 1);
      assert.ok(told?.right && told.id === id);
      await Promise.all([t.call('close', `m${id}`), m.call('close', `t${id}`)]);
    };
    for (let id = 0; id < 10; id++) await round(id);
    const before = await m.call('usage');
    for (let id = 10; id < 160; id++) await round(id);
    const after = await m.call('usage');
    assert.equal(after.fds.length, before.fds.length);
    assert.equal(after.memfds, before.memfds);
    const mappings = after.mappings - before.mappings;
    context.diagnostic(`${mappings} mappings more`);
    // Each channel that is held on to has six.
    assert.ok(mappings < 300, `${mappings} mappings more`);
    await expectNothingLent(o, 'm');
  });
});

describe('when O leaves', () => {
  for (const lengthBytes of LENGTHS) {
    it(`by its death, T keeps ${lengthBytes} bytes, then unmaps`, OPTIONS, async (context) => {
      const three = await threeOf(context);
      const { o, m, t } = three;
      await handOn(three, lengthBytes, 0);
      o.kill();
      assert.equal((await m.call('closed', 'o')).code, 'ERR_UKSHM_PEER_GONE');
      assert.ok((await t.call('look', 't0')).right);
      // M and T talk on.
      await m.call('send', 't', 5000, 9);
      assert.ok((await t.call('receive', 'm', 1))[0]?.right);
      await expectUnmapped(t, 3);
      await t.call('release', 't0');
      await expectUnmapped(t, 2);
      await expectUnmapped(m, 2);
    });

    it(`because M closes, T keeps ${lengthBytes} bytes, then unmaps`, OPTIONS, async (context) => {
      const three = await threeOf(context);
      const { o, m, t, atO } = three;
      await handOn(three, lengthBytes, 0);
      await m.call('close', 'o');
      assert.equal((await o.call('closed', 'm')).reason, 'peer-closed');
      await expectNothingLent(o, 'm');
      await expectUnmapped(o, 0);
      await expectUnmapped(m, 2);
      assert.ok((await t.call('look', 't0')).right);
      // A new channel of O's has other memory.
      await Promise.all([o.call('accept', atO, 'm'), m.call('connect', atO, 'o')]);
      await o.call('fill', 'm', lengthBytes);
      assert.ok((await t.call('look', 't0')).right);
      await t.call('release', 't0');
      await expectUnmapped(t, 2);
    });
  }
});
