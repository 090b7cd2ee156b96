// Rights in letters and flags, packets, and pages and offers as far as one process can have them.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  listOffers,
  offer,
  Pages,
  VMO_DISOWN,
  VMO_DROP_W,
  VMO_DROP_X,
  VMO_GRANT_R,
  VMO_GRANT_W,
  VMO_GRANT_X,
  VMO_GRANTALL,
} from '../../src/offer/index.js';
import { lettersOf, type TermsOptions, termsOf } from '../../src/offer/rights.js';
import {
  ANSWER_BYTES,
  answerIn,
  entriesIn,
  REQUEST_BYTES,
  requestOf,
} from '../../src/offer/wire.js';
import { PAGE_BYTES } from '../../src/sys/memory.js';
import { askFixture, regionDescriptors } from './tools.js';

describe('rights', () => {
  it('mean the same in letters and in flags', () => {
    const pairs: [TermsOptions, number][] = [
      [{ grant: 'r' }, VMO_GRANT_R],
      [{ grant: 'rw', drop: 'w' }, VMO_GRANT_R | VMO_GRANT_W | VMO_DROP_W],
      [{ grant: 'rx', drop: 'x' }, VMO_GRANT_R | VMO_GRANT_X | VMO_DROP_X],
      [{ grant: 'rwx', drop: 'wx' }, VMO_GRANTALL | VMO_DROP_W | VMO_DROP_X],
      [{ grant: 'rwx', drop: 'rwx' }, VMO_GRANTALL | VMO_DISOWN],
    ];
    for (const [letters, flags] of pairs) {
      assert.deepEqual(termsOf(letters), termsOf({ flags }));
      assert.equal(lettersOf(termsOf({ flags }).grant), letters.grant);
      assert.equal(lettersOf(termsOf({ flags }).drop), letters.drop ?? '');
    }
  });
});

describe('packets', () => {
  it('keep an address of 47 bits', () => {
    const address = 0x7fff_1234_5000;
    const bytes = requestOf(1, address, new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]));
    assert.equal(bytes.length, REQUEST_BYTES);
    const view = new DataView(bytes.buffer);
    assert.equal(view.getBigUint64(8, true), BigInt(address));
    assert.equal(view.getUint32(0, true), 0x464f4b55);
  });

  it('of strangers are refused: short, of other kinds, with fewer entries than said', () => {
    const bytes = new Uint8Array(ANSWER_BYTES);
    assert.equal(answerIn(bytes), undefined);
    assert.equal(answerIn(new Uint8Array(0)), undefined);
    new DataView(bytes.buffer).setUint32(0, 0x464f4b55, true);
    assert.equal(answerIn(bytes)?.status, 0);
    assert.equal(answerIn(bytes.subarray(1)), undefined);
    assert.deepEqual(entriesIn(bytes, 0), []);
    for (const count of [1, 2 ** 32 - 1]) assert.equal(entriesIn(bytes, count), undefined);
  });
});

describe('pages', () => {
  it('are zeros, in units, and close once and for all', () => {
    const before = regionDescriptors();
    const pages = Pages.allocate({ sizeBytes: 3 * PAGE_BYTES - 1, unitBytes: PAGE_BYTES });
    assert.equal(pages.sizeBytes, 3 * PAGE_BYTES);
    assert.equal(pages.unitBytes, PAGE_BYTES);
    assert.equal(pages.rights, 'rwx');
    assert.equal(pages.closed, false);
    assert.equal(regionDescriptors(), before + 3);
    const view = pages.bytes;
    assert.ok(view.every((byte) => byte === 0));
    view.fill(7);
    pages.close();
    assert.ok(view.every((byte) => byte === 0));
    assert.equal(pages.closed, true);
    assert.equal(pages.rights, '');
    assert.equal(regionDescriptors(), before);
    assert.throws(() => pages.buffer, { code: 'ERR_UKSHM_CLOSED' });
    pages.close();
  });

  it('are offered, listed and taken back', async () => {
    const pages = Pages.allocate({ sizeBytes: PAGE_BYTES });
    const offered = offer(process.ppid, pages, { flags: VMO_GRANTALL | VMO_DISOWN });
    assert.equal(offered.address, pages.address);
    const [listed] = await listOffers();
    assert.deepEqual(listed, {
      direction: 'sent',
      pid: process.ppid,
      address: pages.address,
      sizeBytes: PAGE_BYTES,
      grant: 'rwx',
      drop: 'rwx',
    });
    offered.cancel();
    assert.equal(await offered.ended, 'cancelled');
    assert.deepEqual(await listOffers(), []);
    pages.close();
  });

  it('that are forgotten or taken away leave nothing; those that are offered stay', async () => {
    const left = await askFixture('offers-lost', [], { nodeOptions: ['--expose-gc'] });
    assert.deepEqual(left, {
      kept: [true],
      standing: [true],
      listed: [],
      descriptors: 0,
      mapped: 0,
    });
  });
});
