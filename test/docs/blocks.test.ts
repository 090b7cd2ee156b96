// Goal: every code block that a reader may copy works.
// Method: each document gets a folder inside the package, so that `import … from 'ukshm'` finds what
// was just built; its blocks are written there, type-checked, and run one after the other.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT, readBelow, readRoot, withExampleLock } from '../house/root.js';
import { type Block, blocksIn, matchesOutput, sessionOf } from './blocks.js';
import { toJavaScript, typeErrors } from './type-check.js';

const FOLDER = join(ROOT, '.cache/docs');
const COMMANDS = join(FOLDER, 'bin');
const TIMEOUT_MS = 60_000;

const ENDINGS: Partial<Record<Block['kind'], string>> = { js: 'mjs', ts: 'mts', python: 'py' };
const PYTHON = spawnSync('python3', ['--version']).status === 0;

/** A block and where it was written to. */
interface Written {
  readonly block: Block;
  readonly folder: string;
  readonly path: string;
}

function run(program: string, args: string[], folder: string, input: string = ''): string {
  const result = spawnSync(program, args, {
    cwd: folder,
    input,
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    env: {
      ...process.env,
      PATH: `${COMMANDS}:${dirname(process.execPath)}:${process.env.PATH}`,
      // As if the client had been installed with pip.
      PYTHONPATH: join(ROOT, 'clients/python/src'),
      PYTHONDONTWRITEBYTECODE: '1',
    },
  });
  const how = result.signal ?? `status ${result.status}`;
  assert.equal(result.status, 0, `ended with ${how}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** What each kind of block must do. */
function tryBlock({ block, folder, path }: Written): void {
  if (block.kind === 'json') JSON.parse(block.code);
  if (block.kind === 'c')
    run('cc', ['-std=c11', '-fsyntax-only', '-x', 'c', '-'], folder, block.code);
  if (block.kind === 'python') {
    run('python3', ['-c', 'import ast, sys; ast.parse(sys.stdin.read())'], folder, block.code);
  }
  if (block.kind === 'sh') run('sh', ['-eu'], folder, block.code);
  if (block.kind === 'console') {
    const { script, expected } = sessionOf(block.code);
    const printed = run('sh', ['-eu'], folder, `exec 2>&1\n${script}\n`);
    assert.ok(matchesOutput(printed, expected), `printed:\n${printed}\nexpected:\n${expected}`);
  }
  const runs = (block.kind === 'js' || block.kind === 'ts') && block.file === undefined;
  if (runs) run(process.execPath, [path.replace(/\.mts$/, '.mjs')], folder);
}

function writeBlock(document: string, block: Block): Written {
  const folder = join(FOLDER, document.replaceAll('/', '-').replace(/\.md$/, ''));
  const name = block.file ?? `line-${block.line}.${ENDINGS[block.kind]}`;
  const path = join(folder, name);
  if (block.kind === 'js' || block.kind === 'ts' || block.kind === 'python') {
    mkdirSync(folder, { recursive: true });
    writeFileSync(path, block.code);
    if (path.endsWith('.mts')) {
      writeFileSync(path.replace(/\.mts$/, '.mjs'), toJavaScript(block.code));
    }
  }
  mkdirSync(folder, { recursive: true });
  return { block, folder, path };
}

function isThere({ path }: Written): boolean {
  return existsSync(path);
}

/** The command `ukshm` as an installed package would give it. */
function writeCommand(): void {
  mkdirSync(COMMANDS, { recursive: true });
  const main = join(ROOT, 'dist/src/cli/main.js');
  const script = `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`;
  writeFileSync(join(COMMANDS, 'ukshm'), script, { mode: 0o755 });
}

function documents(): Map<string, string> {
  const found = new Map([...readBelow('docs', '.md'), ...readBelow('clients', '.md')]);
  for (const name of ['README.md', 'CONTRIBUTING.md']) found.set(name, readRoot(name));
  return found;
}

rmSync(FOLDER, { recursive: true, force: true });
writeCommand();
for (const [document, text] of documents()) {
  describe(document, () => {
    const written = blocksIn(text).map((block) => writeBlock(document, block));
    const checked = written.filter(({ path }) => /\.m[jt]s$/.test(path)).filter(isThere);
    const needsPython = written.some(({ block }) => block.kind === 'python') && !PYTHON;
    const paths = checked.map(({ path }) => path);
    const errors = paths.length > 0 ? typeErrors(paths) : new Map<string, string[]>();
    for (const one of written.filter(({ block }) => block.kind !== 'text')) {
      it(`line ${one.block.line}: the ${one.block.kind} block works`, async (t) => {
        if (needsPython) return t.skip('needs python3: apt-get install python3');
        assert.deepEqual(errors.get(one.path) ?? [], [], 'type errors');
        await withExampleLock(() => tryBlock(one));
      });
    }

    it('links to files that exist', () => {
      for (const [, target] of text.matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)/g)) {
        assert.ok(existsSync(join(ROOT, dirname(document), target)), `${document} -> ${target}`);
      }
    });
  });
}

describe('the block reader', () => {
  it('reads language, file name, line and code', () => {
    const [one, two] = blocksIn('a\n```js\nlet a;\n```\n\n  ```ts file=a.mts\n  let b;\n  ```\n');
    assert.deepEqual(one, { kind: 'js', file: undefined, code: 'let a;\n', line: 2 });
    assert.deepEqual(two, { kind: 'ts', file: 'a.mts', code: 'let b;\n', line: 6 });
  });

  it('refuses blocks that nobody would try', () => {
    for (const info of ['', 'rust', 'js norun', 'js file=../a.mjs', 'js file=a.txt']) {
      assert.throws(() => blocksIn(`\`\`\`${info}\na\n\`\`\`\n`), /^Error: line 1: /, info);
    }
  });

  it('compares what a console prints', () => {
    const { script, expected } = sessionOf('$ a\n$ b\none … (two)\n');
    assert.equal(script, 'a\nb');
    assert.ok(matchesOutput('one 1\n1 (two)\n', expected));
    assert.ok(!matchesOutput('one (three)', expected));
  });

  it('notices a wrong type and a wrong name of the package', () => {
    const path = join(FOLDER, `${basename(import.meta.url)}.mts`);
    writeFileSync(path, "import { nothing } from 'ukshm';\nconst a: string = 1;\n");
    const [errors = []] = typeErrors([path]).values();
    assert.equal(errors.length >= 2, true, errors.join('\n'));
  });
});
