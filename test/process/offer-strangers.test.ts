// Goal: only the process that is named may claim; nobody else learns anything, nobody else is harmed
// by those who try, and a source that lies harms only its own offers.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { listAllOffers } from '../../src/offer/list.js';
import { ACTOR_IS_READABLE, codeOf, killPid, until } from './actors.js';
import { folderFor } from './local.js';
import { type OfferActor, startOfferActor, startTwo, UNIT_BYTES } from './offer-actors.js';
import { LIES } from './pretender.js';

const OPTIONS = { timeout: 60_000 };
const NOBODY = 65534;
const LAST_PID = '/proc/sys/kernel/ns_last_pid';
/** The thread serves 64 connections at most, each with a pidfd. */
const DESCRIPTORS_MAX = 2 * 64 + 16;

function whyNot(): string | false {
  if (process.geteuid?.() !== 0) return 'not possible here: needs root, to run as another user';
  return ACTOR_IS_READABLE
    ? false
    : 'not possible here: another user may not read this folder; put the project elsewhere';
}
const NOBODY_OPTIONS = { ...OPTIONS, skip: whyNot() };

async function refusedText(stranger: OfferActor, pid: number, address: number): Promise<string> {
  try {
    await stranger.call('claim', pid, address, 'q');
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    assert.equal(code, 'ERR_UKSHM_NOT_OFFERED');
    return message.split('\n')[0]?.replaceAll(String(address), 'ADDRESS') ?? '';
  }
  throw new Error('a stranger was given the pages');
}

/** Offers to another; strangers guess, and are told the same of what is there and what is not. */
async function guess(
  source: OfferActor,
  receiver: OfferActor,
  stranger: OfferActor,
): Promise<void> {
  await source.call('allocate', 'p', 8 * UNIT_BYTES, UNIT_BYTES);
  const range = { sizeBytes: UNIT_BYTES, offset: 4 * UNIT_BYTES };
  const options = { ...range, grant: 'rw', drop: 'rwx' } as const;
  const address = await source.call('offer', 'p', receiver.pid, options, 'o');
  const texts = new Set<string>();
  for (let index = -8; index < 8; index++) {
    texts.add(await refusedText(stranger, source.pid, address + index * UNIT_BYTES));
  }
  assert.equal(texts.size, 1, [...texts].join('\n'));
  assert.equal(await source.call('state', 'o'), 'standing');
  assert.deepEqual(await stranger.call('listOffers'), []);
  await receiver.call('claim', source.pid, address, 'q');
  assert.equal(await receiver.call('look', 'q', 0, 10), 'other');
}

describe('a stranger who guesses addresses', () => {
  it('of the same user is refused, and learns nothing', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await guess(source, receiver, await startOfferActor(t));
  });

  it('of another user is refused, and learns nothing', NOBODY_OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await guess(source, receiver, await startOfferActor(t, { uid: NOBODY }));
  });

  it('is refused as well where the kernel has no pidfds of peers', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('challengeAlways');
    await guess(source, receiver, await startOfferActor(t));
    // An answer to an old challenge, or none, is no answer.
    await receiver.call('connectRaw', source.pid, 1);
    const address = await source.call('offer', 'p', receiver.pid, { ...RANGE, grant: 'rw' }, 'o');
    await receiver.call('askRaw', address);
    await receiver.call('askRaw', address);
    await receiver.call('rest', 50);
    assert.equal(await receiver.call('receiveRaw'), 40);
    assert.equal(await receiver.call('receiveRaw'), 40);
    assert.equal(await source.call('state', 'o'), 'standing');
    await receiver.call('claim', source.pid, address, 'r');
  });
});
const RANGE = { sizeBytes: UNIT_BYTES, offset: 0 };

describe('a process of another user', () => {
  it('may be named, and may name: that is the whole permission', NOBODY_OPTIONS, async (t) => {
    const mine = await startOfferActor(t);
    const theirs = await startOfferActor(t, { uid: NOBODY });
    for (const [source, receiver] of [
      [mine, theirs],
      [theirs, mine],
    ] as const) {
      await source.call('allocate', 'p', UNIT_BYTES);
      const heard = receiver.call('incoming', 1);
      const options = { grant: 'rw', drop: 'rwx' } as const;
      const address = await source.call('offer', 'p', receiver.pid, options);
      const told = { pid: source.pid, address, sizeBytes: UNIT_BYTES, ...options };
      assert.deepEqual(await heard, [told]);
      await receiver.call('claim', source.pid, address, 'q');
      assert.equal(await receiver.call('look', 'q'), 'pattern');
      assert.equal(await source.call('look', 'p'), 'zeros');
    }
  });

  it(
    'sees nothing of what is offered to others; the same user and root do',
    NOBODY_OPTIONS,
    async (t) => {
      const [source, receiver] = await startTwo(t);
      const theirs = await startOfferActor(t, { uid: NOBODY });
      await source.call('allocate', 'p', UNIT_BYTES);
      const address = await source.call('offer', 'p', receiver.pid, { grant: 'r' });
      await theirs.call('allocate', 'p', UNIT_BYTES);
      const other = await theirs.call('offer', 'p', receiver.pid, { grant: 'r' });
      const addressesSeen = async (by: Promise<{ address: number }[]>): Promise<number[]> =>
        (await by).map((one) => one.address).filter((one) => one === address || one === other);
      assert.equal((await addressesSeen(listAllOffers())).length, 2);
      assert.deepEqual(await addressesSeen(theirs.call('listAllOffers')), [other]);
      assert.equal((await addressesSeen(receiver.call('listAllOffers'))).length, 2);
    },
  );

  it('that sits at the name of a source is passed by', NOBODY_OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const squatter = await startOfferActor(t, { uid: NOBODY });
    assert.equal(await squatter.call('squat', source.pid), 0);
    await source.call('allocate', 'p', UNIT_BYTES);
    const early = receiver.call('claim', source.pid, 65536, 'q');
    assert.equal(await codeOf(early), 'ERR_UKSHM_NOT_OFFERED', 'that is not the source');
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'r' });
    await receiver.call('claim', source.pid, address, 'q');
    assert.equal(await receiver.call('look', 'q'), 'pattern');
    // At the receiver's name, too: it is not poked, and looks by itself.
    assert.equal(await squatter.call('squatForPokes', receiver.pid), 0);
    const heard = receiver.call('incoming', 1);
    await receiver.call('rest', 50);
    const next = await source.call('offer', 'p', receiver.pid, { grant: 'r' });
    assert.deepEqual(
      (await heard).map((one) => one.address),
      [next],
    );
  });
});

describe('a number that is used again', () => {
  /** Ends an heir, if this number is still one's. */
  function endHeir(pid: number): void {
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('offer-heir')) killPid(pid);
    } catch {
      // It has ended.
    }
  }

  /** An actor of this number, which must be free. */
  async function startAs(context: TestContext, pid: number): Promise<OfferActor | undefined> {
    for (let attempt = 0; attempt < 40; attempt++) {
      writeFileSync(LAST_PID, String(pid - 1));
      const actor = await startOfferActor(context);
      if (actor.pid === pid) return actor;
      actor.kill();
      await actor.exited;
    }
    return undefined;
  }
  const REUSE_OPTIONS = {
    ...OPTIONS,
    skip:
      !existsSync(LAST_PID) || process.geteuid?.() !== 0 ? `not possible here: ${LAST_PID}` : false,
  };

  it('does not inherit an offer, nor what was connected before', REUSE_OPTIONS, async (t) => {
    const [source, first] = await startTwo(t);
    const file = join(folderFor(t), 'answers');
    writeFileSync(file, '');
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', first.pid, { grant: 'rw' }, 'o');
    await first.call('connectRaw', source.pid, 1);
    const heir = await first.call('bequeathRaw', address + UNIT_BYTES, file);
    t.after(() => endHeir(heir));
    await source.call('offer', 'p', first.pid, { grant: 'rw', sizeBytes: 0 });
    // The heir claims another address: its connection works.
    await until('the heir is answered', () => readFileSync(file, 'utf8').length > 0);
    endHeir(heir);
    const held = await first.call('bequeathRaw', address, file);
    t.after(() => endHeir(held));
    await source.call('offer', 'p', first.pid, { grant: 'rw' }, 'o');
    first.kill();
    await first.exited;
    assert.equal(await source.call('ended', 'o'), 'receiver-gone');
    const second = await startAs(t, first.pid);
    if (second === undefined) {
      t.skip('not possible here: the number was not given out again');
      return;
    }
    const late = second.call('claim', source.pid, address, 'q');
    assert.equal(await codeOf(late), 'ERR_UKSHM_NOT_OFFERED');
    await source.call('offer', 'p', second.pid, { grant: 'rw' }, 'o');
    writeFileSync(file, '');
    await until('the heir tries', () => readFileSync(file, 'utf8').split('\n').length > 10);
    assert.deepEqual([...new Set(readFileSync(file, 'utf8').trim().split('\n'))], ['3']);
    assert.equal(await source.call('state', 'o'), 'standing');
    await second.call('claim', source.pid, address, 'q');
    assert.equal(await second.call('look', 'q'), 'pattern');
  });
});

describe('many connections', () => {
  it('that say nothing are bounded, end, and harm nobody else', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const silent = await Promise.all([1, 2, 3, 4, 5, 6].map(() => startOfferActor(t)));
    await source.call('allocate', 'p', UNIT_BYTES);
    await source.call('offer', 'p', receiver.pid, { grant: 'rw' });
    const before = (await source.call('usage')).fds.length;
    for (const actor of silent) await actor.call('connectRaw', source.pid, 100);
    for (let round = 0; round < 20; round++) {
      const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' });
      await receiver.call('claim', source.pid, address, `q${round}`);
    }
    const most = (await source.call('usage')).fds.length - before;
    assert.ok(most <= DESCRIPTORS_MAX, `${most} descriptors more`);
    await until('the silent ones are hung up on', async () => {
      return (await silent[5]?.call('receiveRaw')) === 0;
    });
    await until('all are gone', async () => (await source.call('usage')).fds.length <= before);
  });

  it('that come and go as fast as they can leave time for others', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const stranger = await startOfferActor(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' });
    const flood = stranger.call('floodRaw', source.pid, 2000);
    let claims = 0;
    const end = performance.now() + 1800;
    while (performance.now() < end) {
      await receiver.call('claim', source.pid, address, 'q');
      await receiver.call('closePages', 'q');
      await source.call('offer', 'p', receiver.pid, { grant: 'rw' });
      claims++;
    }
    t.diagnostic(`${claims} claims beside ${await flood} connections`);
    assert.ok(claims > 0);
  });

  it('that say what is no request end, and their descriptors go nowhere', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' });
    const before = (await source.call('usage')).fds;
    for (const lengthBytes of [1, 23, 24, 25, 4096]) {
      await receiver.call('connectRaw', source.pid, 1);
      await receiver.call('sendRaw', new Uint8Array(lengthBytes).fill(0xaa));
      await until('it is hung up on', async () => (await receiver.call('receiveRaw')) === 0);
    }
    await receiver.call('connectRaw', source.pid, 1);
    await receiver.call('passRaw');
    await receiver.call('rest', 50);
    await receiver.call('closeRaw');
    await until('no descriptor is left', async () => {
      return (await source.call('usage')).fds.length === before.length;
    });
    await receiver.call('claim', source.pid, address, 'q');
  });
});

describe('a source that lies', () => {
  it('is found out, and leaves nothing behind', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await receiver.call('incomingBriefly', 10);
    const before = await receiver.call('usage');
    for (const lie of LIES) {
      await source.call('pretend', lie);
      const code = await codeOf(receiver.call('claim', source.pid, 65536, 'q'));
      assert.equal(code, 'ERR_UKSHM_PEER_MISBEHAVED', lie);
    }
    await source.call('pretend', 'hangs up after the grant');
    assert.equal(
      await codeOf(receiver.call('claim', source.pid, 65536, 'q')),
      'ERR_UKSHM_PEER_GONE',
    );
    await source.call('pretend', 'silent');
    const silent = receiver.call('claim', source.pid, 65536, 'q', { timeoutMs: 50 });
    assert.equal(await codeOf(silent), 'ERR_UKSHM_TIMEOUT');
    assert.equal(await receiver.call('claimBriefly', source.pid, 65536, false, 50), 'TimeoutError');
    await source.call('endPretence');
    assert.deepEqual(await receiver.call('listOffers'), []);
    await until('nothing is left', async () => {
      const { fds, memfds } = await receiver.call('usage');
      return fds.length <= before.fds.length && memfds === before.memfds;
    });
    assert.ok(readdirSync(`/proc/${receiver.pid}/fd`).length > 0, 'it lives');
  });
});
