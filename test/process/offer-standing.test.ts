// Goal: an offer that stands can be cancelled, replaced and listed, and it has one end, on which both
// sides agree; what cannot be offered or claimed is refused with a code of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { listen, Region } from '../../src/index.js';
import {
  claim,
  listOffers,
  type OfferOptions,
  offer,
  Pages,
  VMO_DROP_R,
  VMO_DROP_W,
  VMO_DROP_X,
  VMO_GRANT_R,
  VMO_GRANT_W,
  VMO_GRANT_X,
  VMO_GRANTALL,
} from '../../src/offer/index.js';
import { codeOf, uniqueName } from './actors.js';
import { startOfferActor, startTwo, UNIT_BYTES } from './offer-actors.js';

const OPTIONS = { timeout: 60_000 };
const ROUNDS = 3000;
const [, DESCRIPTORS = '0'] =
  /^Max open files +\d+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
const MANY_OPTIONS = {
  timeout: 120_000,
  skip:
    Number(DESCRIPTORS) < 17_000
      ? 'not possible here: 16 384 units need as many descriptors; the hard limit is lower'
      : false,
};

/** The code that a call throws. */
function thrownBy(action: () => unknown): Promise<string> {
  return codeOf(Promise.resolve().then(action));
}

/** A process that has ended, and was waited for. */
async function deadPid(): Promise<number> {
  const child = spawn('true');
  await once(child, 'exit');
  return child.pid ?? 0;
}

describe('an offer that stands', () => {
  it('can be cancelled, and then cannot be claimed', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'o');
    await source.call('cancel', 'o');
    await source.call('cancel', 'o');
    assert.equal(await source.call('ended', 'o'), 'cancelled');
    const late = receiver.call('claim', source.pid, address, 'q');
    assert.equal(await codeOf(late), 'ERR_UKSHM_NOT_OFFERED');
    assert.equal(await source.call('look', 'p'), 'pattern');
    // The same by an offer of no size.
    await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'o');
    await source.call('offer', 'p', receiver.pid, { grant: 'rw', sizeBytes: 0 }, 'none');
    assert.equal(await source.call('state', 'none'), 'cancelled');
    assert.equal(await source.call('ended', 'o'), 'cancelled');
    const nothing = source.call('offer', 'p', receiver.pid, { grant: 'rw', sizeBytes: 0 });
    assert.equal(await codeOf(nothing), 'ERR_UKSHM_NOT_OFFERED');
  });

  it('cannot be cancelled once it is claimed', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    for (const drop of [undefined, 'rwx'] as const) {
      await source.call('allocate', 'p', UNIT_BYTES);
      const options = { grant: 'rw', ...(drop === undefined ? {} : { drop }) } as const;
      const address = await source.call('offer', 'p', receiver.pid, options, 'o');
      await receiver.call('claim', source.pid, address, 'q');
      assert.equal(await codeOf(source.call('cancel', 'o')), 'ERR_UKSHM_CLAIMED');
      const none = source.call('offer', 'p', receiver.pid, { grant: 'rw', sizeBytes: 0 });
      assert.equal(await codeOf(none), 'ERR_UKSHM_CLAIMED');
    }
  });

  it(
    'is replaced by another at its address, of other size, rights and receiver',
    OPTIONS,
    async (t) => {
      const [source, receiver] = await startTwo(t);
      const other = await startOfferActor(t);
      await source.call('allocate', 'p', 4 * UNIT_BYTES, UNIT_BYTES);
      const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'first');
      const less = { grant: 'r', sizeBytes: 2 * UNIT_BYTES } as const;
      assert.equal(await source.call('offer', 'p', other.pid, less, 'second'), address);
      assert.equal(await source.call('ended', 'first'), 'replaced');
      await source.call('cancel', 'first');
      assert.equal(await source.call('state', 'second'), 'standing');
      const late = receiver.call('claim', source.pid, address, 'q');
      assert.equal(await codeOf(late), 'ERR_UKSHM_NOT_OFFERED');
      await other.call('claim', source.pid, address, 'q');
      assert.equal(await other.call('rights', 'q'), 'r');
      assert.equal(await other.call('look', 'q', 0, 2 * UNIT_BYTES), 'other', 'half a pattern');
    },
  );

  it('ends with its pages, with its receiver and with its source', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const mortal = await startOfferActor(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'o');
    await source.call('closePages', 'p');
    assert.equal(await source.call('ended', 'o'), 'cancelled');
    const closed = receiver.call('claim', source.pid, address, 'q');
    assert.equal(await codeOf(closed), 'ERR_UKSHM_NOT_OFFERED');
    await source.call('allocate', 'p', UNIT_BYTES);
    await source.call('offer', 'p', mortal.pid, { grant: 'rw' }, 'o');
    const ended = source.call('ended', 'o');
    mortal.kill();
    assert.equal(await ended, 'receiver-gone');
    const onward = await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'o');
    source.kill();
    await source.exited;
    const gone = receiver.call('claim', source.pid, onward, 'q');
    assert.match(await codeOf(gone), /^ERR_UKSHM_(NO_PROCESS|NOT_OFFERED)$/);
    assert.deepEqual(await receiver.call('listOffers'), []);
  });

  it('has one winner of many claims at once', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    for (let round = 0; round < 50; round++) {
      const address = await source.call('offer', 'p', receiver.pid, { grant: 'rw' }, 'o');
      const claims = Array.from({ length: 6 }, (_, i) =>
        codeOf(receiver.call('claim', source.pid, address, `q${i}`)),
      );
      const codes = (await Promise.all(claims)).sort();
      assert.deepEqual(codes, [...Array(5).fill('ERR_UKSHM_NOT_OFFERED'), 'none']);
    }
  });

  it('has one winner of a claim and a cancellation, and both know who', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', UNIT_BYTES);
    const address = await source.call('address', 'p');
    const had = receiver.call('claimWhile', source.pid, address);
    const ends = await source.call('race', 'p', receiver.pid, ROUNDS);
    await receiver.call('stopClaiming');
    t.diagnostic(JSON.stringify(ends));
    assert.equal((ends.claimed ?? 0) + (ends.cancelled ?? 0), ROUNDS);
    assert.equal(await had, ends.claimed, 'both count the same claims');
    assert.ok((ends.claimed ?? 0) > 0 && (ends.cancelled ?? 0) > 0, 'either side won at times');
  });
});

describe('lists', () => {
  it('hold what was sent and received, with pid, address, size and rights', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    const other = await startOfferActor(t);
    assert.deepEqual(await source.call('listOffers'), []);
    await source.call('allocate', 'p', 3 * UNIT_BYTES, UNIT_BYTES);
    const address = await source.call('address', 'p');
    const one = { sizeBytes: UNIT_BYTES };
    await source.call('offer', 'p', receiver.pid, { ...one, grant: 'rw', drop: 'rwx' });
    await source.call('offer', 'p', other.pid, { ...one, offset: UNIT_BYTES, grant: 'rx' });
    await receiver.call('allocate', 'q', UNIT_BYTES);
    const back = await receiver.call('offer', 'q', source.pid, { grant: 'r', drop: 'w' });
    const first = { address, sizeBytes: UNIT_BYTES, grant: 'rw', drop: 'rwx' };
    const second = { address: address + UNIT_BYTES, sizeBytes: UNIT_BYTES, grant: 'rx', drop: '' };
    const third = { address: back, sizeBytes: UNIT_BYTES, grant: 'r', drop: 'w' };
    const sent = [
      { direction: 'sent', pid: receiver.pid, ...first },
      { direction: 'sent', pid: other.pid, ...second },
    ].sort((a, b) => a.pid - b.pid);
    const received = [{ direction: 'received', pid: receiver.pid, ...third }];
    assert.deepEqual(await source.call('listOffers'), [...sent, ...received]);
    assert.deepEqual(await receiver.call('listOffers'), [
      { direction: 'sent', pid: source.pid, ...third },
      { direction: 'received', pid: source.pid, ...first },
    ]);
    assert.deepEqual(await other.call('listOffers'), [
      { direction: 'received', pid: source.pid, ...second },
    ]);
    assert.deepEqual(await listOffers(), []);
  });

  it('hold each of very many once', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', 1000 * UNIT_BYTES, UNIT_BYTES);
    const address = await source.call('address', 'p');
    await source.call('offerEach', 'p', receiver.pid);
    const listed = await receiver.call('listOffers');
    const addresses = listed.map((one) => one.address);
    assert.deepEqual(
      addresses,
      Array.from({ length: 1000 }, (_, i) => address + i * UNIT_BYTES),
    );
    // While they are replaced all the time: still each once, in one of both forms.
    const replaced = source.call('replaceEach', 'p', receiver.pid, 500);
    for (let round = 0; round < 5; round++) {
      const now = await receiver.call('listOffers');
      assert.deepEqual(
        now.map((one) => one.address),
        addresses,
      );
      assert.ok(now.every(({ grant, drop }) => (grant === 'r') === (drop === '')));
    }
    await replaced;
  });

  it('and the iterator tell of offers as they come', OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', 4 * UNIT_BYTES, UNIT_BYTES);
    const address = await source.call('address', 'p');
    const one = (index: number): OfferOptions => ({
      offset: index * UNIT_BYTES,
      sizeBytes: UNIT_BYTES,
      grant: 'r',
    });
    await source.call('offer', 'p', receiver.pid, one(0));
    const heard = receiver.call('incoming', 3);
    for (const index of [1, 2]) {
      await receiver.call('rest', 60);
      await source.call('offer', 'p', receiver.pid, one(index));
    }
    const told = [0, 1, 2].map((index) => ({
      pid: source.pid,
      address: address + index * UNIT_BYTES,
      sizeBytes: UNIT_BYTES,
      grant: 'r',
      drop: '',
    }));
    assert.deepEqual(await heard, told);
    assert.equal(await receiver.call('incomingBriefly', 30), 'TimeoutError');
    assert.equal((await receiver.call('takeMany', 3)).count, 3);
  });
});

describe('what cannot be', () => {
  const pages = Pages.allocate({ sizeBytes: 4 * UNIT_BYTES, unitBytes: UNIT_BYTES });

  it('allocated: no size, negative, broken, or beyond all limits', OPTIONS, async () => {
    for (const sizeBytes of [0, -1, 1.5, Number.NaN, 2 ** 37]) {
      assert.equal(
        await thrownBy(() => Pages.allocate({ sizeBytes })),
        'ERR_UKSHM_INVALID_ARGUMENT',
      );
    }
    for (const unitBytes of [0, -4096, 0.5]) {
      const code = await thrownBy(() => Pages.allocate({ sizeBytes: 4096, unitBytes }));
      assert.equal(code, 'ERR_UKSHM_INVALID_ARGUMENT');
    }
    const many = { sizeBytes: 16385 * UNIT_BYTES, unitBytes: UNIT_BYTES };
    assert.equal(await thrownBy(() => Pages.allocate(many)), 'ERR_UKSHM_LIMIT');
    const odd = Pages.allocate({ sizeBytes: UNIT_BYTES + 1, unitBytes: UNIT_BYTES });
    assert.equal(odd.sizeBytes, 2 * UNIT_BYTES);
    odd.close();
    odd.close();
    assert.equal(await thrownBy(() => odd.bytes), 'ERR_UKSHM_CLOSED');
    assert.equal(await thrownBy(() => offer(1, odd, { grant: 'r' })), 'ERR_UKSHM_CLOSED');
  });

  it('offered: to nobody, to the dead, to oneself', OPTIONS, async () => {
    const dead = await deadPid();
    const to = (pid: number): Promise<string> => thrownBy(() => offer(pid, pages, { grant: 'r' }));
    assert.equal(await to(dead), 'ERR_UKSHM_NO_PROCESS');
    assert.equal(await to(2 ** 22 - 1), 'ERR_UKSHM_NO_PROCESS');
    for (const pid of [0, -1, 1.5, Number.NaN, 2 ** 31, process.pid]) {
      assert.equal(await to(pid), 'ERR_UKSHM_INVALID_ARGUMENT', String(pid));
    }
  });

  it('offered: parts of units, ranges outside, parts of other offers', OPTIONS, async (t) => {
    const receiver = await startOfferActor(t);
    const with_ = (options: object): Promise<string> =>
      thrownBy(() => offer(receiver.pid, pages, { grant: 'r', ...options }).unref());
    for (const range of [
      { offset: 1 },
      { sizeBytes: 100 },
      { offset: 64, sizeBytes: UNIT_BYTES },
    ]) {
      assert.equal(await with_(range), 'ERR_UKSHM_NOT_UNIT_ALIGNED');
    }
    for (const range of [
      { offset: -UNIT_BYTES },
      { sizeBytes: -UNIT_BYTES },
      { sizeBytes: 5 * UNIT_BYTES },
      { offset: 4 * UNIT_BYTES, sizeBytes: UNIT_BYTES },
      { sizeBytes: Number.NaN },
    ]) {
      assert.equal(await with_(range), 'ERR_UKSHM_INVALID_ARGUMENT', JSON.stringify(range));
    }
    const standing = offer(receiver.pid, pages, {
      offset: UNIT_BYTES,
      sizeBytes: 2 * UNIT_BYTES,
      grant: 'r',
    });
    for (const [offset, count] of [
      [0, 2],
      [0, 4],
      [2, 1],
      [2, 2],
    ] as const) {
      const range = { offset: offset * UNIT_BYTES, sizeBytes: count * UNIT_BYTES };
      assert.equal(await with_(range), 'ERR_UKSHM_OVERLAP');
    }
    assert.equal(standing.state, 'standing');
    standing.cancel();
  });

  it('offered: rights that contradict each other, or none', OPTIONS, async () => {
    for (const options of [
      {},
      { grant: '' },
      { grant: 'w' },
      { grant: 'wr' },
      { grant: 'x' },
      { grant: 'rr' },
      { grant: 'r', drop: 'r' },
      { grant: 'r', drop: 'rw' },
      { grant: 'r', drop: '' },
      { grant: 'r', flags: VMO_GRANT_R },
      { flags: 0 },
      { flags: VMO_GRANT_W },
      { flags: VMO_GRANT_W | VMO_GRANT_X },
      { flags: VMO_GRANT_R | VMO_DROP_R },
      { flags: VMO_GRANT_R | VMO_DROP_R | VMO_DROP_W },
      { flags: VMO_GRANT_R | VMO_DROP_R | VMO_DROP_X },
      { flags: VMO_GRANTALL | 64 },
      { flags: -1 },
      { flags: 1.5 },
    ]) {
      const code = await thrownBy(() => offer(process.ppid, pages, options as OfferOptions));
      assert.equal(code, 'ERR_UKSHM_INVALID_ARGUMENT', JSON.stringify(options));
    }
  });

  it('offered: what is no Pages, as memory of a channel', OPTIONS, async (t) => {
    const region = Region.create({ sizeBytes: 65536 });
    t.after(() => region.close());
    const listener = await listen(uniqueName('no-pages'));
    t.after(() => listener.close());
    const chunk = region.alloc(4096);
    for (const what of [region, chunk, chunk.bytes, new Uint8Array(4096), undefined]) {
      const code = await thrownBy(() => offer(process.ppid, what as never, { grant: 'r' }));
      assert.equal(code, 'ERR_UKSHM_NOT_PAGES');
    }
  });

  it('offered: too much at once, too many', MANY_OPTIONS, async (t) => {
    const [source, receiver] = await startTwo(t);
    await source.call('allocate', 'p', 254 * UNIT_BYTES, UNIT_BYTES);
    const much = source.call('offer', 'p', receiver.pid, { grant: 'r' });
    assert.equal(await codeOf(much), 'ERR_UKSHM_LIMIT');
    const most = { grant: 'r', sizeBytes: 253 * UNIT_BYTES } as const;
    const address = await source.call('offer', 'p', receiver.pid, most);
    await receiver.call('claim', source.pid, address, 'q');
    assert.equal(await receiver.call('look', 'q', 252 * UNIT_BYTES, 1), 'pattern');
    await source.call('closePages', 'p');
    const { made, code } = await source.call('offerMany', receiver.pid, 20_000, UNIT_BYTES);
    assert.equal(code, 'ERR_UKSHM_LIMIT');
    assert.equal(made, 16384);
    assert.equal((await receiver.call('listOffers')).length, 16384);
  });

  it(
    'claimed: from nobody, the dead, oneself, one that never offered, nowhere',
    OPTIONS,
    async (t) => {
      const other = await startOfferActor(t);
      assert.equal(await codeOf(claim(await deadPid(), 65536)), 'ERR_UKSHM_NO_PROCESS');
      assert.equal(await codeOf(claim(2 ** 22 - 1, 65536)), 'ERR_UKSHM_NO_PROCESS');
      assert.equal(await codeOf(claim(other.pid, 65536)), 'ERR_UKSHM_NOT_OFFERED');
      for (const pid of [0, -5, 0.5, process.pid]) {
        assert.equal(await codeOf(claim(pid, 65536)), 'ERR_UKSHM_INVALID_ARGUMENT');
      }
      for (const address of [0, -1, 1.5, 2 ** 60]) {
        assert.equal(await codeOf(claim(other.pid, address)), 'ERR_UKSHM_INVALID_ARGUMENT');
      }
      for (const timeoutMs of [0, -1, 2 ** 31]) {
        const code = await codeOf(claim(other.pid, 65536, { timeoutMs }));
        assert.equal(code, 'ERR_UKSHM_INVALID_ARGUMENT');
      }
      const signal = AbortSignal.abort(new Error('enough'));
      await assert.rejects(claim(other.pid, 65536, { signal }), /enough/);
      await other.call('allocate', 'p', 2 * UNIT_BYTES, UNIT_BYTES);
      const address = await other.call('offer', 'p', process.pid, { grant: 'r' });
      for (const wrong of [address + UNIT_BYTES, address + 1, address - UNIT_BYTES]) {
        assert.equal(await codeOf(claim(other.pid, wrong)), 'ERR_UKSHM_NOT_OFFERED');
      }
      (await claim(other.pid, address)).close();
    },
  );
});
