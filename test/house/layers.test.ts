import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { violationsIn } from './layers.js';
import { readBelow } from './root.js';

/** Checks one file among innocent neighbours. */
function check(path: string, text: string): string[] {
  const files = new Map([
    ['src/core/errors.ts', 'export const a = 1;'],
    ['src/sys/epoll.ts', 'export const a = 1;'],
    ['src/channel/channel.ts', 'export const a = 1;'],
    ['src/offer/offer.ts', 'export const a = 1;'],
    ['src/cli/main.ts', 'export const a = 1;'],
    ['src/index.ts', "export { a } from './channel/channel.js';"],
  ]);
  files.set(path, text);
  return violationsIn(files).map((line) => line.replace(/^src\/[^:]*:/, ''));
}

describe('the layers of src/', () => {
  it('hold', () => {
    const violations = violationsIn(readBelow('src', '.ts'));
    assert.deepEqual(violations, []);
  });
});

// Each snippet breaks one rule, so that a rule which stops working is noticed.
describe('the layer checker', () => {
  const cases: [what: string, path: string, text: string, expected: RegExp][] = [
    ['an import upward', 'src/sys/a.ts', "import '../channel/channel.js';", /upward/],
    ['a hidden one', 'src/ring/a.ts', "import './../x/../channel/channel.js';", /upward/],
    ['a type', 'src/ring/a.ts', "import type { a } from '../channel/channel.js';", /upward/],
    ['an import type', 'src/ring/a.ts', "type A = import('../offer/offer.js').A;", /upward/],
    ['a dynamic import', 'src/ring/a.ts', "await import('../offer/offer.js');", /upward/],
    ['a re-export', 'src/ring/a.ts', "export * from '../offer/offer.js';", /upward/],
    ['the face from below', 'src/channel/a.ts', "import '../index.js';", /upward/],
    ['a neighbour', 'src/offer/a.ts', "import '../channel/channel.js';", /share a floor/],
    ['core in abi', 'src/abi/a.ts', "import '../core/errors.js';", /imports nothing/],
    ['Node in core', 'src/core/a.ts', "import 'node:fs';", /imports nothing/],
    ['a package below cli', 'src/channel/a.ts', "import 'commander';", /use packages/],
    ['itself by name', 'src/channel/a.ts', "import 'ukshm';", /use packages/],
    ['a computed import', 'src/channel/a.ts', "await import('../offer/' + a);", /use packages/],
    ['what is not there', 'src/channel/a.ts', "import './b.js';", /no file of src/],
    ['an unknown folder', 'src/attic/a.ts', '', /no floor/],
    ['a cycle', 'src/sys/epoll.ts', "import './../sys/epoll.js';", /import cycle/],
    ['Atomics', 'src/channel/a.ts', 'Atomics.load(a, 0);', /Atomics/],
    ['hidden Atomics', 'src/channel/a.ts', 'const { load } = globalThis.Atomics;', /Atomics/],
    ['createRequire', 'src/ring/a.ts', "import { createRequire } from 'node:module';", /addon/],
    ['dlopen', 'src/ring/a.ts', 'process.dlopen(a, b);', /addon/],
    ['a timer', 'src/channel/a.ts', 'setTimeout(a, 1);', /setTimeout/],
    ['a global timer', 'src/channel/a.ts', 'globalThis.setTimeout(a, 1);', /setTimeout/],
    ['a timer module', 'src/ring/a.ts', "import * as t from 'node:timers/promises';", /timers/],
    ['the clock', 'src/channel/a.ts', 'performance.now();', /performance/],
    ['hrtime', 'src/channel/a.ts', 'process.hrtime.bigint();', /hrtime/],
    ['hrtime taken out', 'src/channel/a.ts', 'const { hrtime } = process;', /hrtime/],
    ['chance', 'src/memory/a.ts', 'Math.random();', /random/],
    ['chance by index', 'src/memory/a.ts', "Math['random']();", /random/],
    ['any', 'src/memory/a.ts', 'let a: any;', /: any$/],
    ['an enum', 'src/memory/a.ts', 'enum A {}', /enum/],
    ['a namespace', 'src/memory/a.ts', 'namespace A {}', /namespace/],
    ['a long file', 'src/memory/a.ts', '\n'.repeat(401), /longer than 400/],
  ];
  for (const [what, path, text, expected] of cases) {
    it(`reports ${what}`, () => {
      const violations = check(path, text);
      assert.equal(violations.length, 1, violations.join('\n'));
      assert.match(violations[0], expected);
    });
  }

  it('allows what runs downward, and the words in their own folders', () => {
    assert.deepEqual(
      check('src/channel/a.ts', "import '../sys/epoll.js'; import './channel.js';"),
      [],
    );
    assert.deepEqual(check('src/ring/a.ts', 'Atomics.store(a, 0, 1);'), []);
    assert.deepEqual(check('src/sys/a.ts', 'setTimeout(a, 1); Math.random();'), []);
    assert.deepEqual(check('src/cli/a.ts', "import 'commander'; import '../index.js';"), []);
    assert.deepEqual(check('src/index.ts', "export * from './offer/offer.js';"), []);
    assert.deepEqual(check('src/sys/epoll.ts', "import type { A } from './epoll.js';"), []);
    assert.deepEqual(check('src/channel/a.ts', "// Atomics, any\nconst b = 'Math.random()';"), []);
    assert.deepEqual(check('src/channel/a.ts', 'options.require; ({ require: 1 });'), []);
  });
});
