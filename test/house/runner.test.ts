// Goal: the runner of `npm test` never takes a broken test file for a good one.
// Method: it runs small files that fail in one way each.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ROOT } from './root.js';

interface FileResult {
  readonly tests: number;
  readonly failures: string[];
  readonly skips: { name: string; reason: string }[];
  readonly output: string;
}
interface Runner {
  runFile(node: string[], file: string, silenceMs: number): Promise<FileResult>;
}

const SILENCE_MS = 2_000;
const { runFile } = (await import(
  pathToFileURL(join(ROOT, 'scripts/lib/run-file.mjs')).href
)) as Runner;

describe('the test runner', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ukshm-runner-'));
  after(() => rmSync(folder, { recursive: true }));

  const run = (code: string): Promise<FileResult> => {
    const file = join(folder, 'try.test.mjs');
    const imports = `import { describe, it } from 'node:test';
      import { spawn } from 'node:child_process';`;
    writeFileSync(file, `${imports}\n${code}`);
    return runFile([process.execPath], file, SILENCE_MS);
  };

  it('counts tests, and lists skipped ones with their reasons', async () => {
    const { tests, failures, skips } = await run(`describe('a', () => {
      it('b', () => {});
      it('c', (t) => t.skip('no moon'));
      it.skip('d', () => {});
    });`);
    assert.equal(tests, 3);
    assert.deepEqual(failures, []);
    assert.deepEqual(skips, [
      { name: 'a > c', reason: 'no moon' },
      { name: 'a > d', reason: 'no reason given' },
    ]);
  });

  it('reports a failed test once, with its error and what the file printed', async () => {
    const { failures, output } = await run(`describe('a', () => {
      it('b', () => { console.log('printed'); throw new Error('broken'); });
    });`);
    assert.equal(failures.length, 1);
    assert.match(failures[0], /^a > b\nError: broken\n/);
    assert.match(output, /printed/);
  });

  const broken: [what: string, code: string, expected: RegExp][] = [
    ['a file without tests', '', /or holds none/],
    ['a file that does not load', "import './nowhere.mjs';", /ended with status 1/],
    ['a crash', "it('a', () => process.kill(process.pid, 'SIGSEGV'));", /ended by SIGSEGV/],
    ['an early exit', "it('a', () => process.exit(0));", /ended before its tests did/],
    [
      'a late early exit',
      `it('a', () => {}); it('b', () => new Promise((f) => setTimeout(f, 50)));
       it('c', () => process.exit(0));`,
      /ended before its tests did/,
    ],
    ['a test that never ends', "it('a', () => new Promise(() => {}));", /^a\n/],
    ['an endless loop', "it('a', () => { for (;;); });", /reported nothing for 2 s/],
    ['a handle left open', "it('a', () => { setInterval(() => {}, 1e6); });", /nothing for 2 s/],
    [
      'a process left behind',
      "it('a', () => spawn('sleep', ['1000'], { stdio: 'inherit' }).unref());",
      /left processes behind/,
    ],
  ];
  for (const [what, code, expected] of broken) {
    it(`fails ${what}`, async () => {
      const { failures } = await run(code);
      assert.equal(failures.length, 1, failures.join('\n'));
      assert.match(failures[0], expected);
    });
  }
});
