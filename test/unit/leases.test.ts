import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { LeaseTable, type Lent } from '../../src/channel/leases.js';
import { RELEASE_SLOTS } from '../../src/memory/outbox-layout.js';
import { throwsCode } from './rings.js';

function counted(): Lent & { back: number } {
  return {
    back: 0,
    comeBack(): void {
      this.back++;
    },
  };
}

function misbehaves(action: () => unknown): void {
  throwsCode('ERR_UKSHM_PEER_MISBEHAVED', action, /not lent to it/);
}

describe('a table of leases', () => {
  it('takes back what it lent, once', () => {
    const table = new LeaseTable();
    const lent = counted();
    const lease = table.lend(lent);
    const generation = table.generation(lease);
    assert.equal(table.count, 1);
    table.release(lease, generation);
    assert.equal(lent.back, 1);
    assert.equal(table.count, 0);
    misbehaves(() => table.release(lease, generation));
    misbehaves(() => table.release(lease, generation + 1));
    assert.equal(lent.back, 1);
  });

  it('refuses an old release of a number that is lent again', () => {
    const table = new LeaseTable();
    const first = table.lend(counted());
    const old = table.generation(first);
    table.release(first, old);
    const lent = counted();
    const second = table.lend(lent);
    assert.equal(second, first, 'numbers are used again');
    misbehaves(() => table.release(second, old));
    assert.equal(lent.back, 0);
    table.release(second, table.generation(second));
    assert.equal(lent.back, 1);
  });

  it('refuses a number that was never lent, whatever it is', () => {
    const table = new LeaseTable();
    table.lend(counted());
    for (const lease of [1, RELEASE_SLOTS - 1, RELEASE_SLOTS, 0xffffffff]) {
      misbehaves(() => table.release(lease, 0));
    }
    assert.equal(table.count, 1);
  });

  it('has as many leases as the release ring has slots', () => {
    const table = new LeaseTable();
    const numbers = new Set<number>();
    while (!table.full) numbers.add(table.lend(counted()));
    assert.equal(numbers.size, RELEASE_SLOTS);
    assert.equal(Math.max(...numbers), RELEASE_SLOTS - 1);
    table.release(17, 0);
    assert.equal(table.full, false);
    assert.equal(table.lend(counted()), 17);
  });

  it('takes all back from a peer that is gone', () => {
    const table = new LeaseTable();
    const lent = [counted(), counted(), counted()];
    const leases = lent.map((one) => table.lend(one));
    table.release(leases[1], 0);
    table.revokeAll();
    assert.deepEqual(
      lent.map(({ back }) => back),
      [1, 1, 1],
    );
    assert.equal(table.count, 0);
    table.revokeAll();
    misbehaves(() => table.release(leases[0], 0));
  });

  it('never believes a release that is not due, in any order of lending and releasing', () => {
    const step = fc.record({ lend: fc.boolean(), lease: fc.nat(5), generation: fc.nat(3) });
    const property = fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const table = new LeaseTable();
      const out = new Map<number, Lent & { back: number }>();
      for (const { lend, lease, generation } of steps) {
        if (lend) {
          const lent = counted();
          const number = table.lend(lent);
          assert.ok(!out.has(number));
          out.set(number, lent);
          continue;
        }
        const lent = out.get(lease);
        if (lent !== undefined && table.generation(lease) === generation) {
          table.release(lease, generation);
          assert.equal(lent.back, 1);
          out.delete(lease);
        } else {
          misbehaves(() => table.release(lease, generation));
        }
        assert.equal(table.count, out.size);
      }
      table.revokeAll();
      for (const lent of out.values()) assert.equal(lent.back, 1);
    });
    fc.assert(property, { numRuns: 300 });
  });
});
