// Goal: nothing that is under way when a region or a thread ends crashes the process, writes into
// memory that is another's by then, or keeps a descriptor, a page or an address.
// Method: many rounds in child processes, each with its own kind of work in flight.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { askFixture, EMULATED } from './tools.js';

const ROUNDS = EMULATED ? 10 : 100;
const TIMEOUT_MS = 120_000;
/** Node's own heap has a few inaccessible pieces of a guard's length, now and then. */
const GUARDS_NOISE = 12;

interface Left {
  readonly descriptors: number;
  readonly regions: number;
  readonly guards: number;
  readonly rss: number;
}

function ask<Answer>(name: string, ...args: (string | number)[]): Promise<Answer> {
  const nodeOptions = ['--expose-gc'];
  return askFixture<Answer>(name, args.map(String), { nodeOptions, timeoutMs: TIMEOUT_MS });
}

function nothingIsLeft({ descriptors, regions, guards, rss }: Left): void {
  assert.equal(descriptors, 0, 'descriptors of regions');
  assert.equal(regions, 0, 'mapped regions');
  assert.ok(guards <= GUARDS_NOISE, `${guards} reservations are left`);
  assert.equal(rss, 0, 'bytes of shared memory');
}

describe('close() of a region', { concurrency: 2 }, () => {
  for (const kind of ['zlib', 'crypto', 'files', 'fifo']) {
    it(`is safe while ${kind} operations are under way on its memory`, async () => {
      const { spoilt, ...left } = await ask<Left & { spoilt: number }>('closing', kind, ROUNDS);
      assert.equal(spoilt, 0, 'regions that an operation on a closed one wrote into');
      nothingIsLeft(left);
    });
  }

  it('is safe after the program took its buffer away', async (t) => {
    if (!('transfer' in ArrayBuffer.prototype)) {
      return t.skip('not possible here: needs Node 22, where an ArrayBuffer can be transferred');
    }
    const ways = 'transfer,transfer-shorter,transfer-longer,fixed-length';
    const { taken, ...left } = await ask<Left & { taken: number }>('transfer', ways, ROUNDS);
    assert.equal(taken, ROUNDS);
    nothingIsLeft(left);
  });

  it('is safe after the program tried to post its buffer or to clone it away', async () => {
    // Node refuses, or makes a copy: such memory is marked as not transferable.
    const { taken, ...left } = await ask<Left & { taken: number }>(
      'transfer',
      'clone,post',
      ROUNDS,
    );
    assert.equal(taken, 0);
    nothingIsLeft(left);
  });

  it('is safe after the program tried to pass its buffer to a worker', async () => {
    nothingIsLeft(await ask<Left>('transfer', 'worker', EMULATED ? 2 : 10));
  });
});

describe('worker.terminate()', () => {
  interface Remains {
    readonly met: number;
    readonly reasons: Record<string, number>;
    readonly open: number;
    readonly left: string[];
    readonly regions: string[];
    readonly guards: number;
  }
  const rounds = EMULATED ? 2 : 17;
  const delayMs = EMULATED ? 2000 : 60;

  it('at any moment, of several workers that use regions and channels, leaves nothing', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const told = await ask<Remains>('terminate', rounds, 3, delayMs, seed);
    const said = `seed ${seed}: ${JSON.stringify(told)}`;
    assert.ok(told.met > 0, said);
    assert.equal(told.open, 0, said);
    assert.deepEqual(told.left, [], said);
    assert.deepEqual(told.regions, ['/memfd:ukshm:of-main (deleted)'], said);
    assert.ok(told.guards <= GUARDS_NOISE, said);
    for (const reason of Object.keys(told.reasons)) assert.match(reason, /^peer-(gone|closed)$/);
  });
});
