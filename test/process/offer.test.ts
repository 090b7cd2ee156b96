// Goal: pages go from one process to another with the rights that were granted, and the giver has
// dropped what it said. Method: two and three processes; their memory is looked at from outside.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type Drop,
  type Grant,
  VMO_DISOWN,
  VMO_DROP_W,
  VMO_GRANT_R,
  VMO_GRANTALL,
} from '../../src/offer/index.js';
import { codeOf, until } from './actors.js';
import {
  mappingAt,
  pageDescriptors,
  pageMappings,
  residentBytes,
  startOfferActor,
  startTwo,
  UNIT_BYTES,
} from './offer-actors.js';

const OPTIONS = { timeout: 60_000 };
const SIZE = 4 * UNIT_BYTES;

describe('an offer', () => {
  it('is claimed by the process that it names, with everything in it', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', SIZE);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'o');
    assert.equal(address, await source.call('address', 'p'));
    assert.equal(await source.call('state', 'o'), 'standing');
    const here = await receiver.call('claim', source.pid, address, 'q');
    assert.equal(await source.call('state', 'o'), 'claimed');
    assert.equal(await source.call('ended', 'o'), 'claimed');
    assert.equal(await receiver.call('look', 'q'), 'pattern');
    assert.equal(await receiver.call('rights', 'q'), 'rw');
    assert.equal(mappingAt(receiver.pid, here).rights, 'rw-s');
    // Nothing was dropped: both have the same memory.
    await receiver.call('write', 'q', 5, 99);
    assert.equal(await source.call('byteAt', 'p', 5), 99);
    await source.call('write', 'p', 6, 98);
    assert.equal(await receiver.call('byteAt', 'q', 6), 98);
    // One claim only.
    const again = receiver.call('claim', source.pid, address, 'r');
    assert.equal(await codeOf(again), 'ERR_UKSHM_NOT_OFFERED');
  });
});

describe('rights', () => {
  const grants: [Grant, string][] = [
    ['r', 'r--s'],
    ['rw', 'rw-s'],
    ['rx', 'r-xs'],
    ['rwx', 'rwxs'],
  ];
  for (const [grant, rights] of grants) {
    it(`granted as '${grant}' are those of the mapping, and no more`, OPTIONS, async (t) => {
      const [source, receiver] = await startTwo(t);
      await source.call('allocate', 'p', SIZE);
      const address = await source.call('offer', 'p', receiver.pid, { grant, drop: 'rwx' });
      const here = await receiver.call('claim', source.pid, address, 'q');
      assert.equal(mappingAt(receiver.pid, here).rights, rights);
      assert.equal(mappingAt(receiver.pid, here + SIZE - 1).rights, rights);
      assert.equal(await receiver.call('rights', 'q'), grant);
      assert.equal(await receiver.call('look', 'q'), 'pattern');
      // By a new mapping, by writing to the file, by a hole in it; opened anew or not.
      const ways = await receiver.call('regain', 'q');
      assert.equal(ways.length > 0, grant.includes('w'), ways.join());
    });
  }

  it('dropped entirely leave the giver with zeros, and with no mapping', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', SIZE);
    assert.equal(pageMappings(source.pid).length, 1);
    assert.equal(pageDescriptors(source.pid), 1);
    assert.equal(residentBytes(source.pid), SIZE);
    const flags = VMO_GRANTALL | VMO_DISOWN;
    const address = await source.call('offer', 'p', receiver.pid, { flags }, 'o');
    assert.equal(pageMappings(source.pid).length, 1, 'nothing changes before the claim');
    assert.equal(await source.call('look', 'p'), 'pattern');
    const here = await receiver.call('claim', source.pid, address, 'q');
    assert.deepEqual(pageMappings(source.pid), []);
    assert.equal(pageDescriptors(source.pid), 0);
    assert.equal(mappingAt(source.pid, address).path, '');
    assert.equal(mappingAt(source.pid, address).rights, 'rw-p');
    assert.equal(await source.call('look', 'p'), 'zeros');
    assert.equal(await source.call('isClosed', 'p'), true);
    assert.equal(await codeOf(source.call('useBytes', 'p')), 'ERR_UKSHM_CLOSED');
    await source.call('write', 'p', 0, 77);
    assert.equal(await receiver.call('look', 'q'), 'pattern', 'what it writes goes nowhere');
    await receiver.call('write', 'q', 1, 78);
    assert.equal(await source.call('byteAt', 'p', 1), 0, 'what the receiver writes is not seen');
    assert.equal(residentBytes(receiver.pid), SIZE);
    assert.equal(mappingAt(receiver.pid, here).rights, 'rwxs');
    await source.call('closePages', 'p');
    await receiver.call('closePages', 'q');
    assert.deepEqual(pageMappings(receiver.pid), []);
    assert.equal(pageDescriptors(receiver.pid), 0);
  });

  it("dropped as 'w' leave the giver reading, and writing for itself alone", OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', SIZE);
    const flags = VMO_GRANT_R | VMO_DROP_W;
    const address = await source.call('offer', 'p', receiver.pid, { flags });
    const here = await receiver.call('claim', source.pid, address, 'q');
    assert.equal(mappingAt(source.pid, address).rights, 'rw-p');
    assert.equal(mappingAt(receiver.pid, here).rights, 'r--s');
    assert.equal(await source.call('rights', 'p'), 'rx');
    assert.equal(await source.call('look', 'p'), 'pattern');
    await source.call('write', 'p', 0, 77);
    assert.equal(await source.call('byteAt', 'p', 0), 77);
    assert.equal(await receiver.call('look', 'q'), 'pattern');
  });

  it("dropped as 'x' take the right to execute from the mapping", OPTIONS, async (t) => {
    const [source, middle] = await startTwo(t);
    const last = await startOfferActor(t);
    await source.call('allocate', 'p', SIZE);
    const first = await source.call('offer', 'p', middle.pid, { grant: 'rwx' });
    const here = await middle.call('claim', source.pid, first, 'q');
    assert.equal(mappingAt(middle.pid, here).rights, 'rwxs');
    await middle.call('offer', 'q', last.pid, { grant: 'rx', drop: 'x' });
    assert.equal(mappingAt(middle.pid, here).rights, 'rwxs');
    const there = await last.call('claim', middle.pid, here, 'r');
    assert.equal(mappingAt(middle.pid, here).rights, 'rw-s');
    assert.equal(await middle.call('rights', 'q'), 'rw');
    assert.equal(mappingAt(last.pid, there).rights, 'r-xs');
    assert.equal(await middle.call('look', 'q'), 'pattern');
  });

  it("dropped as 'wx' take both", OPTIONS, async (t) => {
    const [source, middle] = await startTwo(t);
    const last = await startOfferActor(t);
    await source.call('allocate', 'p', SIZE);
    const first = await source.call('offer', 'p', middle.pid, { grant: 'rwx', drop: 'rwx' });
    const here = await middle.call('claim', source.pid, first, 'q');
    await middle.call('offer', 'q', last.pid, { grant: 'r', drop: 'wx' });
    await last.call('claim', middle.pid, here, 'r');
    assert.equal(mappingAt(middle.pid, here).rights, 'rw-p');
    assert.equal(await middle.call('rights', 'q'), 'r');
    await middle.call('write', 'q', 0, 77);
    assert.equal(await last.call('look', 'r'), 'pattern');
  });

  it('are offered on, but never more than one has', OPTIONS, async (t) => {
    const [source, middle] = await startTwo(t);
    const last = await startOfferActor(t);
    await source.call('allocate', 'p', SIZE);
    const first = await source.call('offer', 'p', middle.pid, { grant: 'r', drop: 'rwx' });
    const here = await middle.call('claim', source.pid, first, 'q');
    for (const grant of ['rw', 'rx', 'rwx'] as const) {
      const more = middle.call('offer', 'q', last.pid, { grant });
      assert.equal(await codeOf(more), 'ERR_UKSHM_NOT_HELD', grant);
    }
    await middle.call('offer', 'q', last.pid, { grant: 'r', drop: 'rwx' });
    const there = await last.call('claim', middle.pid, here, 'r');
    assert.deepEqual(pageMappings(middle.pid), []);
    assert.equal(await middle.call('look', 'q'), 'zeros');
    await middle.call('write', 'q', 0, 1);
    assert.equal(mappingAt(last.pid, there).rights, 'r--s');
    assert.equal(await last.call('look', 'r'), 'pattern');
    // Both before it may go; what the last one has stays.
    source.kill();
    middle.kill();
    await Promise.all([source.exited, middle.exited]);
    assert.equal(await last.call('look', 'r'), 'pattern');
  });

  it("granted without 'w' once cannot be granted with it later", OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', SIZE);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'r' });
    await receiver.call('claim', source.pid, address, 'q');
    await source.call('write', 'p', 0, 77);
    assert.equal(await receiver.call('byteAt', 'q', 0), 77, 'the source still writes');
    const more = source.call('offer', 'p', receiver.pid, { grant: 'rw' });
    assert.equal(await codeOf(more), 'ERR_UKSHM_NOT_HELD');
    await source.call('offer', 'p', receiver.pid, { grant: 'r' });
    await receiver.call('claim', source.pid, address, 'r');
    // A receiver that may write can seal too: offers that stand then are refused, not half done.
    await source.call('allocate', 's', SIZE);
    const shared = await source.call('offer', 's', receiver.pid, { grant: 'rw' });
    await receiver.call('claim', source.pid, shared, 't');
    await source.call('offer', 's', receiver.pid, { grant: 'rw' }, 'late');
    const other = await startOfferActor(t);
    const onward = await receiver.call('offer', 't', other.pid, { grant: 'r' });
    await other.call('claim', receiver.pid, onward, 'u');
    assert.equal(
      await codeOf(receiver.call('claim', source.pid, shared, 'v')),
      'ERR_UKSHM_SYSCALL',
    );
    assert.equal(await source.call('state', 'late'), 'standing');
  });

  it('belong to units: a run of them goes, the others stay', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', 8 * UNIT_BYTES, UNIT_BYTES);
    const range = { offset: 2 * UNIT_BYTES, sizeBytes: 3 * UNIT_BYTES };
    const options = { ...range, grant: 'rw', drop: 'rwx' } as const;
    const address = await source.call('offer', 'p', receiver.pid, options);
    assert.equal(address, (await source.call('address', 'p')) + range.offset);
    await receiver.call('claim', source.pid, address, 'q');
    assert.equal(pageMappings(source.pid).length, 5);
    assert.equal(pageMappings(receiver.pid).length, 3);
    assert.equal(pageDescriptors(receiver.pid), 3);
    assert.equal(await source.call('isClosed', 'p'), false);
    assert.equal(await source.call('rights', 'p'), '');
    assert.equal(await source.call('rightsAt', 'p', UNIT_BYTES), 'rwx');
    assert.equal(await source.call('rightsAt', 'p', 2 * UNIT_BYTES), '');
    assert.equal(await source.call('look', 'p', 0, 2 * UNIT_BYTES), 'pattern');
    assert.equal(await source.call('look', 'p', range.offset, range.sizeBytes), 'zeros');
    assert.equal(await source.call('look', 'p', 5 * UNIT_BYTES, 3 * UNIT_BYTES), 'pattern');
    const all = source.call('offer', 'p', receiver.pid, { grant: 'r' });
    assert.equal(await codeOf(all), 'ERR_UKSHM_CLOSED');
    // The units at either side go too; then it is closed.
    for (const [offset, count] of [
      [0, 2],
      [5, 3],
    ] as const) {
      const rest = { offset: offset * UNIT_BYTES, sizeBytes: count * UNIT_BYTES };
      const more = { ...rest, grant: 'r', drop: 'rwx' } as const;
      const at = await source.call('offer', 'p', receiver.pid, more);
      await receiver.call('claim', source.pid, at, `q${offset}`);
    }
    assert.equal(await source.call('isClosed', 'p'), true);
    assert.deepEqual(pageMappings(source.pid), []);
  });
});

describe('a source', () => {
  it('that is busy in an endless loop answers, drops and never crashes', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const drops: (Drop | undefined)[] = [undefined, 'w', 'rwx'];
    const addresses: number[] = [];
    for (const [index, drop] of drops.entries()) {
      await source.call('allocate', `p${index}`, SIZE);
      const options = { grant: 'r', ...(drop === undefined ? {} : { drop }) } as const;
      addresses.push(await source.call('offer', `p${index}`, receiver.pid, options));
    }
    await source.call('spinForEver', 'p2');
    for (const [index, address] of addresses.entries()) {
      await receiver.call('claim', source.pid, address, `q${index}`);
      const rights = mappingAt(source.pid, address).rights;
      assert.equal(rights, index === 0 ? 'rw-s' : 'rw-p');
    }
    assert.equal(pageMappings(source.pid).filter((line) => line.includes('s 0')).length, 1);
    const before = await receiver.call('byteAt', 'q2', 0);
    await receiver.call('spin', 50);
    assert.equal(await receiver.call('byteAt', 'q2', 0), before, 'it writes elsewhere now');
    // Still alive, and still in its loop.
    await receiver.call('spin', 50);
    source.kill('SIGKILL');
    assert.deepEqual(await source.exited, { status: null, signal: 'SIGKILL', stderr: '' });
  });

  it('stays alive for what it offers, unless told otherwise', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const other = await startOfferActor(t);
    await source.call('allocate', 'p', SIZE);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'r' }, 'o');
    await source.call('leave');
    await other.call('allocate', 'p', SIZE);
    await other.call('offer', 'p', receiver.pid, { grant: 'r' }, 'o');
    await other.call('unref', 'o');
    await other.call('leave');
    assert.equal((await other.exited).status, 0);
    await receiver.call('claim', source.pid, address, 'q');
    assert.equal((await source.exited).status, 0, 'it ended when nothing was offered any more');
    assert.equal(await receiver.call('look', 'q'), 'pattern');
  });

  it('has one thread more from its first offer on, and none before', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', SIZE);
    const before = await source.call('threads');
    await source.call('offer', 'p', receiver.pid, { grant: 'r' });
    assert.equal(await source.call('threads'), before + 1);
    await source.call('offer', 'p', receiver.pid, { grant: 'r' });
    assert.equal(await source.call('threads'), before + 1);
  });

  it('may be a worker; its end is the end of what it offers', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const claimed = await source.call('offerInWorker', receiver.pid);
    await receiver.call('claim', source.pid, claimed, 'q');
    const address = await source.call('offerInWorker', receiver.pid);
    assert.equal((await receiver.call('listOffers')).length, 1);
    assert.equal(pageDescriptors(source.pid), 2);
    await source.call('endWorkers');
    assert.deepEqual(await receiver.call('listOffers'), []);
    assert.equal(pageDescriptors(source.pid), 0);
    assert.equal(
      await codeOf(receiver.call('claim', source.pid, address, 'r')),
      'ERR_UKSHM_NOT_OFFERED',
    );
    assert.equal(await receiver.call('byteAt', 'q', 9), 7);
    await until('the worker’s pages are unmapped', () => pageMappings(source.pid).length === 0);
  });

  it(
    'that has lent pages to its kernel cannot have them claimed until they are back',
    OPTIONS,
    async (t) => {
      const [source, receiver] = await startTwo(t);
      await source.call('allocate', 'p', 2 * UNIT_BYTES, UNIT_BYTES);
      const address = await source.call(
        'offer',
        'p',
        receiver.pid,
        { grant: 'r', drop: 'rwx' },
        'o',
      );
      await source.call('lend', 'p', UNIT_BYTES + 10, 100);
      assert.equal(
        await codeOf(receiver.call('claim', source.pid, address, 'q')),
        'ERR_UKSHM_LENT',
      );
      assert.equal(await codeOf(source.call('closePages', 'p')), 'ERR_UKSHM_LENT');
      assert.equal(await source.call('state', 'o'), 'standing');
      assert.equal(await source.call('look', 'p'), 'pattern');
      await source.call('giveBack', 'p');
      await receiver.call('claim', source.pid, address, 'q');
      assert.equal(await receiver.call('look', 'q'), 'pattern');
      assert.equal(await codeOf(source.call('lend', 'p', 0, 1)), 'ERR_UKSHM_CLOSED');
    },
  );
});
