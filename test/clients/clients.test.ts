// Goal: processes in TypeScript, C and Python understand each other, in all pairs and both roles,
// and each of them takes the other's death as it should.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { ROOT } from '../house/root.js';
import { PATIENCE_MS, uniqueName, until } from '../process/actors.js';
import {
  compileSanitized,
  Language,
  pythonProgram,
  STRICT,
  typescriptProgram,
} from './languages.js';
import { VECTORS_FILE } from './make-vectors.js';

const OPTIONS = { timeout: 60_000 };

const folder = mkdtempSync(join(tmpdir(), 'ukshm-clients-'));
after(() => rmSync(folder, { recursive: true }));

function compileC(): Language {
  const program = join(folder, 'actor');
  const source = join(ROOT, 'clients/c/actor.c');
  const flags = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-pthread'];
  execFileSync('cc', [...flags, source, '-o', program], { stdio: 'inherit' });
  return new Language('C', [program]);
}

const typescript = typescriptProgram('./actor.js');
const languages = [typescript, compileC(), pythonProgram('actor.py')];
const usable = languages.filter((language) => language.missing === undefined);

describe('every client', () => {
  for (const language of languages) {
    it(`${language.name} makes of the test vectors what they say`, OPTIONS, async (t) => {
      if (language.missing !== undefined) return t.skip(language.missing);
      if (language === typescript) return t.diagnostic('vectors.test.ts does');
      const { ended } = language.start(t, 'vectors', VECTORS_FILE);
      const last = await ended;
      assert.equal(last?.event, 'done', last?.message);
      assert.ok((last?.messages ?? 0) > 200);
    });
  }
});

for (const listening of usable) {
  for (const connecting of usable) {
    describe(`${listening.name} listening, ${connecting.name} connecting`, () => {
      const pairs: readonly (readonly [string, string, string])[] = [
        ['the connector asks', 'echo', 'ask'],
        ['the listener asks', 'ask', 'echo'],
        ['the connector requests', 'echo', 'request'],
        ['the listener requests', 'request', 'echo'],
        ['many small ones one way', 'sink', 'source 20000 100'],
        ['large ones back, some held', 'source 200 200000', 'hold 5'],
      ];
      for (const [what, one, other] of pairs) {
        it(what, OPTIONS, async (t) => {
          const name = uniqueName('clients');
          const near = await listening.startReady(t, 'listen', name, ...one.split(' '));
          const far = await connecting.startReady(t, 'connect', name, ...other.split(' '));
          const [a, b] = await Promise.all([near.ended, far.ended]);
          assert.equal(a?.event, 'done', a?.message);
          assert.equal(b?.event, 'done', b?.message);
          assert.ok((a?.messages ?? 0) >= 200);
          assert.deepEqual([a?.messages, a?.bytes], [b?.messages, b?.bytes]);
        });
      }

      it('each is told at once that the other was killed', OPTIONS, async (t) => {
        for (const victim of ['listener', 'connector']) {
          const name = uniqueName('clients');
          const near = await listening.startReady(t, 'listen', name, 'sink');
          const far = await connecting.startReady(t, 'connect', name, 'source', '1000000000', '64');
          const [dead, living] = victim === 'listener' ? [near, far] : [far, near];
          await until('it is under way', () => living.events.length > 0, PATIENCE_MS);
          dead.child.kill('SIGKILL');
          const last = await living.ended;
          assert.equal(last?.event, 'error');
          assert.equal(last?.code, 'ERR_UKSHM_PEER_GONE', last?.message);
        }
      });
    });
  }
}

describe('a message that C, Python and TypeScript hand on', () => {
  for (const middle of usable) {
    for (const end of usable) {
      it(`from TypeScript by ${middle.name} to ${end.name}`, OPTIONS, async (t) => {
        const [first, second] = [uniqueName('clients'), uniqueName('clients')];
        const origin = await typescript.startReady(t, 'listen', first, 'source', '300', '20000');
        const target = await end.startReady(t, 'listen', second, 'sink');
        const relay = middle.start(t, 'connect', first, 'forward', second);
        for (const running of [origin, relay, target]) {
          const last = await running.ended;
          assert.equal(last?.event, 'done', last?.message);
          assert.deepEqual([last?.messages, last?.bytes], [300, 6_000_000]);
        }
      });
    }
  }
});

describe('the client in C', () => {
  for (const compiler of ['cc', 'aarch64-linux-gnu-gcc']) {
    it(`compiles without a warning with ${compiler}`, OPTIONS, (t) => {
      const found = spawnSync(compiler, ['--version']).status === 0;
      if (!found) return t.skip('needs a cross compiler: apt-get install gcc-aarch64-linux-gnu');
      for (const source of ['actor.c', 'topic_actor.c']) {
        const path = join(ROOT, 'clients/c', source);
        execFileSync(compiler, [...STRICT, '-O2', '-c', path, '-o', join(folder, 'strict.o')]);
      }
    });
  }

  it('does nothing undefined, and leaks nothing', OPTIONS, async (t) => {
    const program = join(folder, 'sanitized');
    compileSanitized('actor.c', program);
    const sanitized = new Language('C, sanitized', [program]);
    assert.equal((await sanitized.start(t, 'vectors', VECTORS_FILE).ended)?.event, 'done');
    for (const [one, other] of [
      ['echo', 'ask'],
      ['request', 'echo'],
      ['sink', 'source 3000 9000'],
    ] as const) {
      for (const [listening, connecting] of [
        [sanitized, typescript],
        [typescript, sanitized],
      ] as const) {
        const name = uniqueName('sanitized');
        const near = await listening.startReady(t, 'listen', name, ...one.split(' '));
        const far = await connecting.startReady(t, 'connect', name, ...other.split(' '));
        const [a, b] = await Promise.all([near.ended, far.ended]);
        assert.equal(a?.event, 'done', a?.message);
        assert.equal(b?.event, 'done', b?.message);
      }
    }
  });

  it('has an example that does what it says', OPTIONS, () => {
    const program = join(folder, 'example');
    const source = join(ROOT, 'clients/c/example.c');
    execFileSync('cc', ['-std=gnu11', '-O2', '-Wall', '-pthread', source, '-o', program]);
    const printed = execFileSync(program, { encoding: 'utf8', timeout: PATIENCE_MS });
    assert.equal(
      printed,
      '8000000 bytes, read in place; the first is 42\n' +
        'message of type 1, id 7: hello\nthe sender has closed the channel\n',
    );
  });
});

describe('the client in Python', () => {
  const python = languages[2] as Language;
  const client = join(ROOT, 'clients/python');

  it('passes its own unit tests', OPTIONS, (t) => {
    if (python.missing !== undefined) return t.skip(python.missing);
    const { status, stderr } = spawnSync('python3', ['-m', 'unittest', '-q', 'test_ring'], {
      cwd: join(client, 'tests'),
      env: { ...process.env, PYTHONPATH: join(client, 'src'), PYTHONDONTWRITEBYTECODE: '1' },
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    assert.match(stderr, /Ran [1-9]/);
  });

  it('is installed by pip from its folder', OPTIONS, (t) => {
    if (python.missing !== undefined) return t.skip(python.missing);
    const pip = spawnSync('python3', ['-m', 'pip', '--version']).status === 0;
    if (!pip) return t.skip('needs pip: apt-get install python3-pip');
    // pip would leave its own files in the folder that it builds.
    const copy = join(folder, 'python');
    cpSync(client, copy, { recursive: true });
    const target = join(folder, 'installed');
    const args = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', target, copy];
    const { status, stderr } = spawnSync('python3', args, { encoding: 'utf8' });
    if (/No matching distribution found for setuptools/.test(stderr)) {
      return t.skip('needs a network: pip fetches setuptools');
    }
    assert.equal(status, 0, stderr);
    const code =
      'import ukshm, os; print(os.path.dirname(ukshm.__file__)); ukshm.listen("p").close()';
    const env = { ...process.env, PYTHONPATH: target };
    const printed = execFileSync('python3', ['-c', code], { env, encoding: 'utf8', cwd: folder });
    assert.equal(printed.trim(), join(target, 'ukshm'));
    assert.ok(existsSync(join(target, 'ukshm', 'py.typed')));
  });

  for (const [one, other] of [
    ['echo', 'ask'],
    ['request', 'echo'],
    ['sink', 'source 20000 100'],
    ['source 200 200000', 'sink'],
  ] as const) {
    it(`does the same with asyncio: ${one} and ${other}`, OPTIONS, async (t) => {
      if (python.missing !== undefined) return t.skip(python.missing);
      for (const first of [typescript, python]) {
        const second = first === python ? typescript : python;
        const words = (who: Language, role: string): string[] =>
          who === python ? [...role.split(' '), '--asyncio'] : role.split(' ');
        const name = uniqueName('asyncio');
        const near = await first.startReady(t, 'listen', name, ...words(first, one));
        const far = await second.startReady(t, 'connect', name, ...words(second, other));
        const [a, b] = await Promise.all([near.ended, far.ended]);
        assert.equal(a?.event, 'done', a?.message);
        assert.deepEqual([a?.messages, a?.bytes], [b?.messages, b?.bytes]);
      }
    });
  }
});
