// Goal: an immutable claim succeeds only if the kernel proves that nobody can write any more, and then
// nobody can, the source least of all.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { codeOf, until } from './actors.js';
import {
  mappingAt,
  pageDescriptors,
  startOfferActor,
  startTwo,
  UNIT_BYTES,
} from './offer-actors.js';

const OPTIONS = { timeout: 60_000 };
const IMMUTABLE = { immutable: true } as const;

describe('an immutable claim', () => {
  it('succeeds where the source drops writing or everything', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    for (const [grant, drop] of [
      ['r', 'w'],
      ['r', 'rwx'],
      ['rx', 'wx'],
      ['rw', 'rwx'],
      ['rwx', 'rwx'],
    ] as const) {
      await source.call('allocate', 'p', 4 * UNIT_BYTES, UNIT_BYTES);
      const address = await source.call('offer', 'p', receiver.pid, { grant, drop });
      const here = await receiver.call('claim', source.pid, address, 'q', IMMUTABLE);
      const rights = grant.replace('w', '');
      assert.equal(await receiver.call('rights', 'q'), rights);
      const shown = rights === 'r' ? 'r--s' : 'r-xs';
      assert.equal(mappingAt(receiver.pid, here).rights, shown);
      await source.call('write', 'p', 0, 77);
      assert.equal(await receiver.call('look', 'q'), 'pattern');
      assert.deepEqual(await receiver.call('regain', 'q'), []);
      assert.equal(await receiver.call('everySeal'), true, 'F_SEAL_WRITE is on all of them');
      await receiver.call('closePages', 'q');
      await source.call('closePages', 'p');
    }
  });

  it(
    'fails while the source can write, at its deadline, and leaves nothing',
    OPTIONS,
    async (t) => {
      const [source, receiver] = await startTwo(t);
      for (const options of [{ grant: 'r' }, { grant: 'rw' }, { grant: 'r', drop: 'x' }] as const) {
        await source.call('allocate', 'p', UNIT_BYTES);
        const address = await source.call('offer', 'p', receiver.pid, options);
        const timely = { ...IMMUTABLE, timeoutMs: 60 };
        const refused = receiver.call('claim', source.pid, address, 'q', timely);
        assert.equal(await codeOf(refused), 'ERR_UKSHM_STILL_WRITABLE');
        await until('it is closed', () => pageDescriptors(receiver.pid) === 0);
        assert.equal(await source.call('look', 'p'), 'pattern', 'the source has its pages still');
        await source.call('write', 'p', 0, 1);
      }
      const address = await source.call('offer', 'p', receiver.pid, { grant: 'r' });
      const ended = await receiver.call('claimBriefly', source.pid, address, true, 60);
      assert.equal(ended, 'TimeoutError', 'the signal’s reason');
      await until('it is closed', () => pageDescriptors(receiver.pid) === 0);
    },
  );

  it('succeeds as soon as the last writer is gone', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const other = await startOfferActor(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const first = await source.call('offer', 'p', other.pid, { grant: 'rw' });
    await other.call('claim', source.pid, first, 'q');
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'r', drop: 'rwx' });
    const claimed = receiver.call('claim', source.pid, address, 'q', IMMUTABLE);
    await receiver.call('rest', 100);
    other.kill();
    await claimed;
    assert.equal(await receiver.call('look', 'q'), 'pattern');
  });

  it('finds out a source that keeps a mapping of its own', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('pretend', 'keeps a mapping');
    const options = { ...IMMUTABLE, timeoutMs: 60 };
    const refused = receiver.call('claim', source.pid, 65536, 'q', options);
    assert.equal(await codeOf(refused), 'ERR_UKSHM_STILL_WRITABLE');
  });

  it('can be repeated by whoever they are offered on to', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const last = await startOfferActor(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw', drop: 'rwx' });
    const here = await receiver.call('claim', source.pid, address, 'q', IMMUTABLE);
    await receiver.call('offer', 'q', last.pid, { grant: 'r' });
    await last.call('claim', receiver.pid, here, 'r', IMMUTABLE);
    assert.equal(await last.call('look', 'r'), 'pattern');
    assert.equal(await receiver.call('look', 'q'), 'pattern');
  });
});
