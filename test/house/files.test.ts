// What is kept under version control is what people wrote, or keep on purpose: nothing that a run left.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { ROOT } from './root.js';

/** Sources, texts, settings; what belongs to rivals in bench/peers; compiled, logged, packed: none. */
const KINDS =
  /(^|\/)(\.gitignore|\.npmrc|LICENSE|cc-flags|run)$|\.(ts|cts|mjs|c|h|py|rs|java|md|svg|txt|json|toml|xml|lock|typed)$/;

it('version control keeps no leftovers of runs', (context) => {
  if (!existsSync(join(ROOT, '.git'))) {
    context.skip('not possible here: no repository');
    return;
  }
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' });
  const strange = files.split('\0').filter((path) => path !== '' && !KINDS.test(path));
  assert.deepEqual(strange, []);
});
