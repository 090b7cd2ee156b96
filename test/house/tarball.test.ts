// Goal: what users install is whole, and works without building anything.
// Method: npm pack, then an install into an empty project with --ignore-scripts.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { blocksIn } from '../docs/blocks.js';
import { makeProject, npmIn, type Project, runIn } from './project.js';
import { ROOT, readRoot, withExampleLock } from './root.js';

const TOOLS = join(ROOT, 'node_modules/.bin');

/** What a strict user of TypeScript has; the declarations of ukshm itself are checked too. */
const USER_SETTINGS = {
  compilerOptions: {
    module: 'nodenext',
    target: 'es2022',
    lib: ['es2022'],
    types: ['node'],
    typeRoots: [join(ROOT, 'node_modules/@types')],
    strict: true,
    skipLibCheck: false,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    allowJs: true,
    checkJs: true,
    noEmit: true,
  },
  files: ['example.mjs'],
};

/** Sends until a large part has gone through shared memory: without its preload it never would. */
const FORKS_CODE = `
import { readFileSync } from 'node:fs';
import { fork } from 'ukshm/child-process';
if (process.send) process.on('message', (m) => process.send(m));
else {
  const isShared = () => readFileSync('/proc/self/maps', 'utf8').includes('memfd:ukshm:fork-');
  const child = fork(new URL(import.meta.url), { serialization: 'advanced' });
  const end = (text) => {
    console.log(text);
    child.disconnect();
  };
  const start = performance.now();
  child.on('message', (bytes) => {
    if (isShared()) end('shared');
    else if (performance.now() - start > 60000) end('not shared');
    else setTimeout(() => child.send(bytes), 5);
  });
  child.send(Buffer.alloc(1_000_000));
}
`;

describe('the packed tarball', () => {
  let project: Project;
  before(() => {
    project = makeProject();
    const example = blocksIn(readRoot('README.md')).find(({ kind }) => kind === 'js');
    assert.ok(example, 'README.md has a js block');
    writeFileSync(join(project.folder, 'example.mjs'), example.code);
  });
  after(() => project?.remove());

  const runExample = (): Promise<void> =>
    withExampleLock(() => {
      const { status, output } = runIn(project.folder, process.execPath, ['example.mjs']);
      assert.equal(status, 0, output);
    });

  it('holds what is needed to run and to build, and nothing else', () => {
    const { stdout } = runIn(project.folder, 'tar', ['-tzf', project.tarball]);
    const files = stdout
      .trim()
      .split('\n')
      .map((line) => line.replace(/^package\//, ''));
    const allowed = [
      /^dist\/src\/.*\.(js|d\.ts)$/,
      /^dist\/src\/patterns\/child-process\/preload\.cjs$/,
      /^native\/([\w-]+\.[ch]|cc-flags|include\/[\w-]+\.h)$/,
      /^prebuilds\/linux-(x64|arm64)-glibc\/ukshm\.node$/,
      /^clients\/c\/(ukshm\.h|example(_topic)?\.c|README\.md)$/,
      /^clients\/python\/(pyproject\.toml|README\.md|src\/ukshm\/(\w+\.py|py\.typed))$/,
      /^(docs\/FORMAT\.md|README\.md|CHANGELOG\.md|LICENSE|package\.json)$/,
    ];
    const stray = files.filter((file) => !allowed.some((pattern) => pattern.test(file)));
    assert.deepEqual(stray, []);
    for (const file of [
      'README.md',
      'CHANGELOG.md',
      'LICENSE',
      'docs/FORMAT.md',
      'native/cc-flags',
      'clients/c/ukshm.h',
      'clients/python/pyproject.toml',
    ]) {
      assert.ok(files.includes(file), file);
    }
    assert.ok(files.includes('native/include/node_api.h'));
  });

  it('holds an addon for x64 and one for arm64', (t) => {
    if (!project.complete) {
      t.skip('no cross compiler; Debian: apt-get install gcc-aarch64-linux-gnu (or x86-64)');
      return;
    }
    for (const [arch, machine] of [
      ['x64', 62],
      ['arm64', 183],
    ] as const) {
      const addon = readFileSync(
        join(project.installed, `prebuilds/linux-${arch}-glibc/ukshm.node`),
      );
      // ELF header: magic, and e_machine at 18 (EM_X86_64, EM_AARCH64).
      assert.equal(addon.toString('latin1', 1, 4), 'ELF');
      assert.equal(addon.readUInt16LE(18), machine, arch);
    }
  });

  it('has no install script, nor what implies one', () => {
    const { scripts } = JSON.parse(readFileSync(join(project.installed, 'package.json'), 'utf8'));
    const names = Object.keys(scripts).filter((name) => /install|^prepare$/.test(name));
    assert.deepEqual(names, []);
    assert.ok(!existsSync(join(project.installed, 'binding.gyp')));
  });

  it("runs and type-checks README's first example, unchanged", async () => {
    writeFileSync(join(project.folder, 'tsconfig.json'), JSON.stringify(USER_SETTINGS));
    await runExample();
    const checked = runIn(project.folder, join(TOOLS, 'tsc'), ['-p', '.']);
    assert.equal(checked.status, 0, checked.output);
  });

  it('gives a fork whose large messages go through shared memory', () => {
    writeFileSync(join(project.folder, 'forks.mjs'), FORKS_CODE);
    const { status, output } = runIn(project.folder, process.execPath, ['forks.mjs']);
    assert.equal(status, 0, output);
    assert.equal(output, 'shared\n');
  });

  it('gives the command ukshm', () => {
    const { status, output } = npmIn(project.folder, ['exec', '--', 'ukshm', '--help']);
    assert.equal(status, 0, output);
    assert.match(output, /relay/);
  });

  it('satisfies publint', async () => {
    const bytes = readFileSync(project.tarball);
    const tarball = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    const { messages } = await publint({ pack: { tarball }, strict: true });
    const manifest = JSON.parse(readRoot('package.json'));
    assert.deepEqual(
      messages.map((message) => formatMessage(message, manifest)),
      [],
    );
  });

  it('satisfies are-the-types-wrong', () => {
    const args = [project.tarball, '--profile', 'esm-only', '--no-definitely-typed', '--no-color'];
    const { status, output } = runIn(project.folder, join(TOOLS, 'attw'), args);
    assert.equal(status, 0, output);
  });

  it('names platform and cure where no addon loads', () => {
    const url = pathToFileURL(join(project.installed, 'dist/src/index.js')).href;
    const load = `await import('${url}').then(() => console.log('loaded'),
      (error) => console.log(error.code, error.message));`;
    const pretend = (property: string, value: string): string =>
      `Object.defineProperty(process, '${property}', { value: '${value}' });`;
    const tell = (code: string): string => {
      const args = ['--input-type=module', '-e', `${code}\n${load}`];
      return runIn(project.folder, process.execPath, args).output;
    };
    assert.match(tell(''), /^loaded/);
    assert.match(
      tell(pretend('arch', 'riscv64')),
      /^ERR_UKSHM_ADDON .*linux-riscv64-glibc.*npx ukshm build/,
    );
    assert.match(tell(pretend('platform', 'darwin')), /^ERR_UKSHM_ADDON .*darwin-.*needs Linux/);
    const musl = `process.report.getReport = () => ({ header: {} });`;
    assert.match(
      tell(`${pretend('arch', 'riscv64')}${musl}`),
      /^ERR_UKSHM_ADDON .*linux-riscv64-musl.*npx ukshm build/,
    );
  });

  it('builds its addon with `ukshm build` where the shipped one does not load', async () => {
    const shipped = join(project.installed, 'prebuilds');
    renameSync(shipped, `${shipped}.away`);
    try {
      const built = npmIn(project.folder, ['exec', '--', 'ukshm', 'build']);
      assert.equal(built.status, 0, built.output);
      await runExample();
    } finally {
      rmSync(shipped, { recursive: true, force: true });
      renameSync(`${shipped}.away`, shipped);
    }
  });
});
