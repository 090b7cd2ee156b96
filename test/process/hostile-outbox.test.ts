// Goal: whatever a connector writes into its outbox ends its own channel with
// ERR_UKSHM_PEER_MISBEHAVED and no other, and the victim lives.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DESCRIPTOR_BYTES,
  HEAD_INDEX,
  RELEASE_SLOTS,
  RELEASE_TAIL_INDEX,
  TAIL_INDEX,
  TYPE_DESCRIPTOR,
  TYPE_PADDING,
} from '../../src/memory/outbox-layout.js';
import { cleanup, codeOf, until } from './actors.js';
import { hungUp, type RawConnector } from './raw-peer.js';
import { ARENA_BYTES, RING_BYTES, startVictim, type Victim } from './victims.js';

const OPTIONS = { timeout: 30_000 };

describe('a hostile connector', () => {
  const suite = cleanup();
  let victim: Victim;
  before(async () => {
    victim = await startVictim(suite);
  });
  after(() => suite.end());

  const tails: readonly (readonly [string, (raw: RawConnector) => void, RegExp])[] = [
    ['a tail beyond the ring', (raw) => raw.store(TAIL_INDEX, RING_BYTES + 8), /its tail/],
    ['a tail far away', (raw) => raw.store(TAIL_INDEX, 0x80000000), /its tail/],
    ['a tail behind itself', (raw) => raw.store(TAIL_INDEX, -8), /its tail/],
    ['an unaligned tail', (raw) => raw.store(TAIL_INDEX, 12), /its tail/],
    [
      'a record that ends behind the tail',
      (raw) => {
        raw.record(0, 100, 1);
        raw.store(TAIL_INDEX, 64);
      },
      /record/,
    ],
    [
      'a record longer than what may stand in the ring',
      (raw) => {
        raw.record(0, 0xffff, 1);
        raw.store(TAIL_INDEX, RING_BYTES);
      },
      /record/,
    ],
    [
      'a padding of no length',
      (raw) => {
        raw.record(0, 0, TYPE_PADDING);
        raw.store(TAIL_INDEX, 8);
      },
      /record/,
    ],
    [
      'a padding beyond the tail',
      (raw) => {
        raw.record(0, 3, TYPE_PADDING);
        raw.store(TAIL_INDEX, 16);
      },
      /record/,
    ],
    ['a message of a reserved type', inline(0xc001), /reserved type/],
    ['a reply that nobody asked for', inline(0x8000), /not asked/],
    ['a failure of what nobody asked', inline(0xc000), /not asked/],
    ...descriptorLies(),
  ];

  function inline(type: number): (raw: RawConnector) => void {
    return (raw) => {
      raw.record(0, 8, type, 0, 0);
      raw.store(TAIL_INDEX, 16);
    };
  }

  function descriptorLies(): typeof tails {
    const describeAt = (length: number, ...payload: number[]) => {
      return (raw: RawConnector): void => {
        raw.record(0, length, TYPE_DESCRIPTOR, ...payload);
        raw.store(TAIL_INDEX, 32);
      };
    };
    const good = (raw: RawConnector): number => raw.layout.arenaOffset;
    const lie = (payload: (raw: RawConnector) => number[]) => (raw: RawConnector) =>
      describeAt(DESCRIPTOR_BYTES, ...payload(raw))(raw);
    return [
      ['a descriptor of another length', describeAt(16, 0, 0, 0, 0, 0, 0), /record/],
      ['a chunk in the ring', lie(() => [4096, 8, 0, 0, 0, 0]), /outside/],
      [
        'a chunk behind the region',
        lie((raw) => [raw.layout.totalBytes, 1, 0, 0, 0, 0]),
        /outside/,
      ],
      [
        'a chunk across the region’s end',
        lie((raw) => [good(raw), ARENA_BYTES + 1, 0, 0, 0, 0]),
        /outside/,
      ],
      ['a chunk whose end wraps', lie((raw) => [good(raw), 0xffffffff, 0, 0, 0, 0]), /outside/],
      ['a chunk at the end of the numbers', lie(() => [0xffffffff, 1, 0, 0, 0, 0]), /outside/],
      ['a lease without a slot', lie((raw) => [good(raw), 8, RELEASE_SLOTS, 0, 0, 0]), /lease/],
      ['a region never imported', lie((raw) => [good(raw), 8, 0, 0, 7, 0]), /region 7/],
      [
        'a large reply that nobody asked for',
        lie((raw) => [good(raw), 8, 0, 0, 0, 0x8000]),
        /not asked/,
      ],
      ['a reserved type', lie((raw) => [good(raw), 8, 0, 0, 0, TYPE_PADDING]), /type/],
    ];
  }

  for (const [what, write, words] of tails) {
    it(`that publishes ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await victim.hostileChannel(t);
      const received = victim.actor.call('receiveAll', as);
      write(raw);
      raw.ring();
      await victim.expectMisbehaved(as, words);
      assert.equal((await received).code, 'ERR_UKSHM_PEER_MISBEHAVED');
      await hungUp(raw.fd);
      await victim.expectHonest();
    });
  }

  it('that publishes a record across the ring’s end', OPTIONS, async (t) => {
    const { raw, as } = await victim.hostileChannel(t);
    const received = victim.actor.call('receiveAll', as);
    raw.record(0, (RING_BYTES - 16) / 8, TYPE_PADDING);
    raw.store(TAIL_INDEX, RING_BYTES - 16);
    raw.ring();
    await until('the padding was read', () => {
      return Atomics.load(raw.otherWords, HEAD_INDEX) === RING_BYTES - 16;
    });
    raw.record(RING_BYTES - 16, 100, 1);
    raw.store(TAIL_INDEX, RING_BYTES - 16 + 112);
    raw.ring();
    await victim.expectMisbehaved(as, /record/);
    await received;
    await victim.expectHonest();
  });

  it('that takes back what it has published', OPTIONS, async (t) => {
    const { raw, as } = await victim.hostileChannel(t);
    raw.record(0, 8, 1);
    raw.record(16, 8, 1);
    raw.store(TAIL_INDEX, 32);
    raw.ring();
    await victim.actor.call('hold', as, 'first');
    raw.store(TAIL_INDEX, 16);
    raw.ring();
    await victim.expectMisbehaved(as, /tail/);
    assert.equal(await codeOf(victim.actor.call('look', 'first')), 'ERR_UKSHM_CLOSED');
    await victim.expectHonest();
  });

  it('that lends more chunks than there are slots', OPTIONS, async (t) => {
    const { raw, as } = await victim.hostileChannel(t);
    const kept = victim.actor.call('keepAll', as);
    let tail = 0;
    for (let lease = 0; lease <= RELEASE_SLOTS; lease++) {
      const at = tail % RING_BYTES;
      const number = lease % RELEASE_SLOTS;
      raw.record(at, DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, raw.layout.arenaOffset, 8, number, 0, 0, 0);
      tail += 32;
      raw.store(TAIL_INDEX, tail);
      raw.ring();
      while (tail - Atomics.load(raw.otherWords, HEAD_INDEX) >= RING_BYTES) await sleep(1);
    }
    await victim.expectMisbehaved(as, /lent at a time/);
    assert.equal((await kept).count, RELEASE_SLOTS);
    await victim.expectHonest();
  });

  const heads: readonly (readonly [string, number])[] = [
    ['beyond what was published', 1 << 20],
    ['behind itself', -8],
    ['that is unaligned', 12],
  ];
  for (const [what, head] of heads) {
    it(`that releases a head ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await victim.hostileChannel(t);
      await victim.actor.call('send', as, 100, 1);
      await victim.actor.call('send', as, 100, 2);
      const flooded = victim.actor.call('flood', as, 1000);
      raw.store(HEAD_INDEX, head);
      raw.ring();
      await victim.expectMisbehaved(as, /head/);
      assert.equal((await flooded).code, 'ERR_UKSHM_PEER_MISBEHAVED');
      await victim.expectHonest();
    });
  }

  const releases: readonly (readonly [string, number, readonly number[], RegExp])[] = [
    ['more than it was lent', 3, [0, 0, 1, 0, 0, 0], /of 2 that it was lent/],
    ['a whole ring of releases', -1, [], /that it was lent/],
    ['what it was not lent', 1, [2, 0], /lease 2/],
    ['a lease that does not exist', 1, [0xffffffff, 0], /lease 4294967295/],
    ['another generation', 1, [0, 1], /generation 1/],
    ['the same chunk twice', 2, [1, 0, 1, 0], /lease 1/],
  ];
  for (const [what, tail, slots, words] of releases) {
    it(`that releases ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await victim.hostileChannel(t);
      await victim.actor.call('send', as, 20_000, 1);
      await victim.actor.call('send', as, 20_000, 2);
      raw.words.set(
        slots.map((word) => word | 0),
        raw.layout.releaseOffset >> 2,
      );
      raw.store(RELEASE_TAIL_INDEX, tail);
      raw.ring();
      await victim.expectMisbehaved(as, words);
      const stats = (await victim.actor.call('stats', as)) as { bytesLent: number };
      assert.equal(stats.bytesLent, 0);
      await victim.expectHonest();
    });
  }

  it('leaves nothing behind, whatever it tried', OPTIONS, async () => {
    await until('the honest channel is all that is there', async () => {
      return (await victim.actor.call('usage')).memfds === 2;
    });
  });
});
