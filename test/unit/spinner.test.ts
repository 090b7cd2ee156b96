import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Spinner } from '../../src/channel/spinner.js';

function budgets(spinner: Spinner, count: number): number[] {
  return Array.from({ length: count }, () => spinner.budget());
}

describe('a spinner', () => {
  it('looks on as long as it is told, while that pays', () => {
    const spinner = new Spinner(20);
    for (let i = 0; i < 100; i++) {
      assert.equal(spinner.budget(), 20);
      // Seven failures in a row are not yet enough to give up.
      spinner.report(i % 8 === 7);
    }
    assert.equal(spinner.count, 100);
    assert.equal(spinner.successes, 12);
  });

  it('stops after failures in a row, but for a try now and then', () => {
    const spinner = new Spinner(20);
    for (let i = 0; i < 8; i++) spinner.report(false);
    const seen = budgets(spinner, 128);
    assert.deepEqual(
      seen.flatMap((budget, i) => (budget > 0 ? [i] : [])),
      [63, 127],
    );
  });

  it('looks on again as soon as a try succeeds', () => {
    const spinner = new Spinner(20);
    for (let i = 0; i < 50; i++) spinner.report(false);
    assert.equal(spinner.budget(), 0);
    spinner.report(true);
    assert.deepEqual(budgets(spinner, 5), [20, 20, 20, 20, 20]);
  });

  it('never looks on where it is told not to', () => {
    const spinner = new Spinner(0);
    assert.ok(budgets(spinner, 200).every((budget) => budget === 0));
  });
});
