// The short form of `npm run proof`: each scenario for some seconds, by each search.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { explain, lineOf, MODULES, type Result, scenariosOf, searchAll } from './plan.js';

const BUDGET = { milliseconds: 200, randomMax: 300, firstSeed: 1 };

for (const module of MODULES) {
  const scenarios = await scenariosOf(module);
  describe(`every schedule tried: ${module}`, () => {
    for (const scenario of scenarios) {
      it(scenario.name, () => {
        const results: Result[] = [...searchAll(scenario, BUDGET)];
        for (const result of results)
          assert.equal(result.outcome.failure, undefined, explain(result, scenarios));
        console.log(results.map(lineOf).join('\n'));
      });
    }
  });
}
