import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BUGS } from './bugs.js';
import { searchReduced } from './explore/dpor.js';
import type { Scenario } from './explore/scenario.js';
import { type Limits, type Outcome, searchBounded, searchRandom } from './explore/search.js';
import { tableOf } from './explore/table.js';
import { scenariosOf } from './plan.js';

const SEARCHES: readonly ((scenario: Scenario, limits: Limits) => Outcome)[] = [
  (scenario, limits) => searchRandom(scenario, 1, limits),
  (scenario, limits) => searchBounded(scenario, 2, limits),
  searchReduced,
];
const SCHEDULES_MAX = 3000;

describe('the explorer catches', () => {
  for (const bug of BUGS) {
    it(bug.name, async () => {
      const scenarios = await scenariosOf(bug.scenarios, [bug.edit]);
      const scenario = scenarios.find(({ name }) => name.includes(bug.scenario));
      assert.ok(scenario !== undefined, bug.scenario);
      const tried: string[] = [];
      for (const search of SEARCHES) {
        const { failure, schedules } = search(scenario, { schedulesMax: SCHEDULES_MAX });
        if (failure === undefined) {
          tried.push(`not in ${schedules} schedules`);
          continue;
        }
        const { message } = failure.world.failure as Error;
        assert.match(message, bug.failure, tableOf(failure));
        return;
      }
      assert.fail(tried.join(', '));
    });
  }

  it('no bug whose text has gone from the sources', async () => {
    const edit = { file: 'src/ring/producer.ts', from: 'no such text', to: '' };
    await assert.rejects(
      () => scenariosOf('ring', [edit]),
      /stands 0 times in src\/ring\/producer\.ts/,
    );
  });
});
