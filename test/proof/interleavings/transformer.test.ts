// What the transformer makes of each construct that the product uses, and what it refuses.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { ROOT } from '../../house/root.js';
import { turn } from '../transform/build.js';
import { execute } from './explore/execution.js';
import type { Scenario } from './explore/scenario.js';
import { chooserOf } from './explore/search.js';
import { scenariosOf } from './plan.js';

const FOLDER = `.cache/tried-${process.pid}`;

after(() => rmSync(join(ROOT, FOLDER), { recursive: true, force: true }));

let count = 0;

/** Turns a text that has `words`, an Int32Array of which nothing is known. */
function turned(text: string): string {
  const path = `${FOLDER}/case-${count++}.ts`;
  mkdirSync(join(ROOT, FOLDER), { recursive: true });
  writeFileSync(join(ROOT, path), text);
  return turn({ roots: [path] }).get(path.replace('.ts', '.js')) ?? '';
}

function refuses(text: string, line: number, why: RegExp): void {
  assert.throws(
    () => turned(text),
    (error: Error) => {
      assert.match(error.message, why);
      assert.ok(error.message.includes(`case-${count - 1}.ts:${line}:`), error.message);
      return true;
    },
  );
}

describe('the transformer', () => {
  it('turns what may reach an access, and nothing else', () => {
    const text = turned(`
      export function load(words: Int32Array): number { return words[0] as number; }
      export function twice(words: Int32Array): number { return load(words) * 2; }
      export function add(a: number, b: number): number { return a + b; }
      const own = new Int32Array(4);
      export function count(): number { own[0] = add(own[0] as number, 1); return own[0] as number; }
    `);
    assert.match(
      text,
      /function\* load\(words\) { return \(yield\* \$\.load\(\$S \+ 0, words, 0\)\)/,
    );
    assert.match(text, /function\* twice\(words\) { return \(yield\* load\(words\)\) \* 2/);
    assert.match(text, /function add\(/);
    assert.match(text, /function count\(/);
  });

  it('turns accessors, callbacks, private members and promises', () => {
    const text = turned(`
      export class Box {
        readonly #words: Int32Array;
        constructor(words: Int32Array) { this.#words = words; }
        get #first(): number { return Atomics.load(this.#words, 0); }
        get isEmpty(): boolean { return this.#first === 0; }
        visit(each: (value: number) => void): void { each(this.#first); }
        async wait(ready: Promise<void>): Promise<boolean> { await ready; return this.isEmpty; }
      }
      export const all = (boxes: Box[]): boolean => boxes.every((box) => box.isEmpty);
    `);
    assert.match(text, /\*#get\$first\(\)/);
    assert.match(text, /\(yield\* this\.#get\$first\(\)\) === 0/);
    assert.match(text, /yield\* \$\.run\(each\(/);
    assert.match(text, /\*wait\(ready\) { return yield\* \$\.spawn\(/);
    assert.match(text, /yield \$\.waitFor\(ready\)/);
    assert.match(text, /\$\.each\(boxes, 'every', \(\(function\* \(box\)/);
  });

  it('refuses, with file and line, what it cannot turn', () => {
    const cases: [string, number, RegExp][] = [
      [
        'export class A {\n  #a: number;\n  constructor(w: Int32Array) {\n    this.#a = w[0] as number;\n  }\n  get a(): number { return this.#a; }\n}',
        4,
        /a step in a constructor/,
      ],
      [
        'export function f(w: Int32Array): void {\n  w[0] += 1;\n}',
        2,
        /an assignment that is not a plain one|compound/,
      ],
      ['export function f(w: Int32Array): void {\n  w[0]++;\n}', 2, /not a plain one/],
      [
        'export function f(w: Int32Array): void {\n  Atomics.add(w, 0, 1);\n}',
        2,
        /other than load and store/,
      ],
      [
        'export function f(w: Int32Array): number {\n  let n = 0;\n  for (const v of w) n += v;\n  return n;\n}',
        3,
        /iteration over what may be shared/,
      ],
      [
        'export function f(w: Int32Array): string {\n  return "a".replace(/a/, () => String(w[0]));\n}',
        2,
        /callback given to foreign code/,
      ],
      [
        'export const w = new Int32Array(new ArrayBuffer(4));\nexport const n = w[0];',
        2,
        /outside any function/,
      ],
      [
        'export function f(w: Int32Array, n = w[0]): unknown {\n  w[1] = 0;\n  return n;\n}',
        1,
        /default of a parameter|outside any function|its colour is unknown/,
      ],
      [
        'export function* f(w: Int32Array): Generator<number> {\n  yield w[0] as number;\n}',
        2,
        /a generator of its own/,
      ],
    ];
    for (const [text, line, why] of cases) refuses(text, line, why);
  });

  it('cuts a copy of a payload into several steps', async () => {
    const [ring] = (await scenariosOf('ring')) as [Scenario];
    const { world } = execute(ring, chooserOf(1));
    assert.equal(world.failure, undefined);
    const copies = world.trace.filter(({ op }) => op.kind.startsWith('copy'));
    // Three messages, written and read, two pieces each.
    assert.equal(copies.length, 12);
  });
});
