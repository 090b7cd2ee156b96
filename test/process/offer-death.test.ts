// Goal: whoever dies, at whatever step, leaves the other side alive and nothing behind; nor do ten
// thousand offers. Method: SIGKILL and SIGSTOP at each step, and at random moments; descriptors,
// mappings and memory are compared.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { boundSockets, codeOf, sharedFiles, until } from './actors.js';
import type { OfferOperations } from './fixtures/offer-actor.js';
import {
  type OfferActor,
  pageDescriptors,
  pageMappings,
  startOfferActor,
  startTwo,
  UNIT_BYTES,
} from './offer-actors.js';

const OPTIONS = { timeout: 60_000 };
const GIVE = { grant: 'rw', drop: 'rwx' } as const;
/** What the garbage collector may keep for its own sake. */
const RESIDENT_SLACK_BYTES = 48 * 2 ** 20;

describe('a receiver that is killed', () => {
  it('before it claims, leaves the source its pages', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    await source.call('offer', 'p', receiver.pid, GIVE, 'o');
    const ended = source.call('ended', 'o');
    receiver.kill();
    assert.equal(await ended, 'receiver-gone');
    assert.equal(await source.call('look', 'p'), 'pattern');
    const other = await startOfferActor(t);
    const address = await source.call('offer', 'p', other.pid, GIVE);
    await other.call('claim', source.pid, address, 'q');
    assert.equal(await other.call('look', 'q'), 'pattern');
  });

  it('with its request unread or its answer unread, has it or has it not', OPTIONS, async (t) => {
    const source = await startOfferActor(t);
    const ends: Record<string, number> = {};
    for (let round = 0; round < 12; round++) {
      const receiver = await startOfferActor(t);
      await source.call('allocate', 'p', UNIT_BYTES);
      const address = await source.call('offer', 'p', receiver.pid, GIVE, 'o');
      await receiver.call('connectRaw', source.pid, 1);
      // In the first rounds the source is stopped while it is asked; in others it has answered.
      if (round < 4) source.kill('SIGSTOP');
      if (round % 2 === 0) await receiver.call('askRaw', address);
      else void receiver.call('claim', source.pid, address, 'q').catch(() => {});
      if (round % 3 > 0) await sleep(round);
      receiver.kill();
      await receiver.exited;
      source.kill('SIGCONT');
      const end = await source.call('ended', 'o');
      ends[end] = (ends[end] ?? 0) + 1;
      const gone = end === 'claimed';
      assert.match(end, /^(claimed|receiver-gone)$/);
      assert.equal(await source.call('look', 'p'), gone ? 'zeros' : 'pattern');
      assert.equal(await source.call('isClosed', 'p'), gone);
      assert.equal(pageMappings(source.pid).length, gone ? 0 : 1);
      await source.call('closePages', 'p');
      assert.equal(pageDescriptors(source.pid), 0);
    }
    t.diagnostic(JSON.stringify(ends));
    assert.equal(Object.keys(ends).length, 2, JSON.stringify(ends));
  });

  it('behind its claim, harms nobody; what it was given is freed', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'kept', UNIT_BYTES);
    await source.call('allocate', 'given', UNIT_BYTES);
    const kept = await source.call('offer', 'kept', receiver.pid, { grant: 'rw' });
    const given = await source.call('offer', 'given', receiver.pid, GIVE);
    await receiver.call('claim', source.pid, kept, 'q');
    await receiver.call('claim', source.pid, given, 'r');
    receiver.kill();
    await receiver.exited;
    assert.equal(await source.call('look', 'kept'), 'pattern');
    assert.equal(await source.call('look', 'given'), 'zeros');
    assert.equal(pageDescriptors(source.pid), 1);
    assert.equal(pageMappings(source.pid).length, 1);
  });
});

describe('a source that is killed', () => {
  it('takes its offers with it, and nothing that was claimed', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', 2 * UNIT_BYTES, UNIT_BYTES);
    const first = { sizeBytes: UNIT_BYTES, grant: 'rw' } as const;
    const address = await source.call('offer', 'p', receiver.pid, first);
    await source.call('offer', 'p', receiver.pid, { ...first, offset: UNIT_BYTES });
    await receiver.call('claim', source.pid, address, 'q');
    source.kill();
    await source.exited;
    assert.deepEqual(boundSockets(`ukshm-offer/1/${source.pid}`), []);
    assert.equal(await receiver.call('look', 'q', 0, 100), 'pattern');
    await receiver.call('write', 'q', 0, 9);
    assert.equal(
      await codeOf(receiver.call('claim', source.pid, address + UNIT_BYTES, 'r')),
      'ERR_UKSHM_NO_PROCESS',
    );
  });

  it('or stopped, while it is asked, is waited for no longer than allowed', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', receiver.pid, GIVE, 'o');
    source.kill('SIGSTOP');
    const impatient = receiver.call('claim', source.pid, address, 'q', { timeoutMs: 50 });
    assert.equal(await codeOf(impatient), 'ERR_UKSHM_TIMEOUT');
    assert.equal(
      await receiver.call('claimBriefly', source.pid, address, false, 50),
      'TimeoutError',
    );
    source.kill('SIGCONT');
    assert.equal(await source.call('state', 'o'), 'standing', 'nobody waited any more');
    source.kill('SIGSTOP');
    const patient = receiver.call('claim', source.pid, address, 'q');
    await sleep(50);
    source.kill('SIGCONT');
    await patient;
    await source.call('offerBatch', receiver.pid, 1, GIVE);
    source.kill('SIGSTOP');
    const listed = await receiver.call('listOffers');
    assert.deepEqual(listed, [], 'one that does not answer is left out');
    const hopeless = receiver.call('claim', source.pid, address, 'r');
    await sleep(50);
    source.kill('SIGKILL');
    assert.match(await codeOf(hopeless), /^ERR_UKSHM_(NO_PROCESS|NOT_OFFERED|PEER_GONE)$/);
  });

  it('at any moment of its claims leaves the receiver working', { timeout: 120_000 }, async (t) => {
    const receiver = await startOfferActor(t);
    await receiver.call('incomingBriefly', 10);
    const before = await receiver.call('usage');
    for (let round = 0; round < 8; round++) {
      const source = await startOfferActor(t);
      await source.call('offerBatch', receiver.pid, 200, GIVE);
      const claiming = codeOf(receiver.call('claimListed'));
      await sleep(5 + round * 3);
      source.kill();
      assert.match(await claiming, /^(none|ERR_UKSHM_(NO_PROCESS|NOT_OFFERED|PEER_GONE))$/);
    }
    await expectSame(receiver, before, 'the receiver');
    const source = await startOfferActor(t);
    await source.call('offerBatch', receiver.pid, 3, GIVE);
    assert.equal(await receiver.call('claimListed'), 3);
  });

  it('nor does a receiver that is killed at any moment of them', {
    timeout: 120_000,
  }, async (t) => {
    const source = await startOfferActor(t);
    await source.call('offerBatch', process.pid, 0, GIVE);
    const before = await source.call('usage');
    for (let round = 0; round < 8; round++) {
      const receiver = await startOfferActor(t);
      await source.call('offerBatch', receiver.pid, 200, GIVE);
      receiver.call('claimListed').catch(() => {});
      await sleep(5 + round * 3);
      receiver.kill();
      await source.call('endBatch');
    }
    await until('no offer stands', async () => (await source.call('listOffers')).length === 0);
    // The thread, its sockets, and nothing of those who died.
    const { fds } = await source.call('usage');
    assert.ok(fds.length <= before.fds.length + 6, fds.join('\n'));
    assert.equal(pageDescriptors(source.pid), 0);
    assert.equal(pageMappings(source.pid).length, 0);
  });
});

type Usage = Awaited<ReturnType<OfferOperations['usage']>>;

async function expectSame(actor: OfferActor, was: Usage, who: string): Promise<string> {
  let now = await actor.call('usage');
  await until(`${who} has what it had before`, async () => {
    now = await actor.call('usage');
    return now.fds.length <= was.fds.length && now.memfds <= was.memfds;
  }).catch(() => assert.deepEqual(now.fds, was.fds, who));
  const grown = now.residentBytes - was.residentBytes;
  assert.ok(grown < RESIDENT_SLACK_BYTES, `${who} grew by ${grown} bytes`);
  return `${who}: ${Math.round(grown / 1024)} KiB more`;
}

describe('ten thousand offers and claims', () => {
  it('leave descriptors, mappings, memory and names as they were', {
    timeout: 120_000,
  }, async (t) => {
    const files = sharedFiles();
    const [source, receiver] = await startTwo(t);
    const rounds = async (count: number): Promise<void> => {
      for (let round = 0; round < count; round++) {
        const options = round % 2 === 0 ? GIVE : ({ grant: 'r' } as const);
        await source.call('offerBatch', receiver.pid, 100, options);
        assert.equal(await receiver.call('claimListed'), 100);
        assert.equal(await source.call('endBatch'), true);
      }
    };
    await rounds(4);
    const before = [await source.call('usage'), await receiver.call('usage')] as const;
    await rounds(100);
    t.diagnostic(await expectSame(source, before[0], 'the source'));
    t.diagnostic(await expectSame(receiver, before[1], 'the receiver'));
    assert.deepEqual(sharedFiles(), files);
    source.kill();
    receiver.kill();
    await Promise.all([source.exited, receiver.exited]);
    assert.deepEqual(
      boundSockets('ukshm-offer/1/').filter((line) => line.includes(`/${source.pid}`)),
      [],
    );
  });
});
