// @ts-check
// `npm run build`: the addon (one cc) and the TypeScript (one tsc), each only when its input changed.
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mustRun, ROOT, run, runMain, StepError, tool } from './lib/run.mjs';
import { filesBelow, hashOf, isFresh, setStamp, withLock } from './lib/stamp.mjs';

/** The headers of Node-API, from the npm package. */
export const HEADERS = 'node_modules/node-api-headers/include';
const NO_COMPILER =
  'The addon is built by a C compiler. On Debian or Ubuntu: apt-get install gcc libc6-dev\n' +
  '(or set CC to another compiler).';

/**
 * Where the addon for an architecture lies, relative to the root.
 *
 * @param {string} arch - as in `process.arch`
 * @returns {string}
 */
export function addonPath(arch) {
  return `prebuilds/linux-${arch}-glibc/ukshm.node`;
}

/**
 * Compiles native/*.c. The new file takes the old one's place by a rename, because a running
 * process may have the old one mapped.
 *
 * @param {string} arch
 * @param {string} compiler
 * @returns {Promise<boolean>} false: nothing had changed
 */
export async function buildAddon(arch, compiler) {
  const sources = filesBelow('native', ['.c']);
  if (sources.length === 0) return false;
  const version = await run(compiler, ['--version']);
  if (version.status !== 0) throw new StepError(`no C compiler (${compiler}).\n${NO_COMPILER}`);
  const target = addonPath(arch);
  // native/include is a copy of the headers, made for the tarball.
  const own = filesBelow('native', ['.c', '.h', 'cc-flags']).filter(
    (path) => !path.includes('/include/'),
  );
  const inputs = [...own, ...filesBelow(HEADERS, ['.h'])];
  const hash = hashOf(inputs, [version.stdout]);
  if (isFresh(`addon-${arch}`, hash) && existsSync(join(ROOT, target))) return false;
  mkdirSync(join(ROOT, dirname(target)), { recursive: true });
  const fresh = `${target}.${process.pid}`;
  try {
    await mustRun('building the addon', compiler, [
      '@native/cc-flags',
      '-I',
      HEADERS,
      '-o',
      fresh,
      ...sources,
    ]);
    renameSync(join(ROOT, fresh), join(ROOT, target));
  } finally {
    rmSync(join(ROOT, fresh), { force: true });
  }
  setStamp(`addon-${arch}`, hash);
  return true;
}

/**
 * Compiles src/, test/ and bench/ to dist/, and removes what has no source any more.
 *
 * @returns {Promise<boolean>} false: nothing had changed
 */
async function buildTypeScript() {
  const sources = ['src', 'test', 'bench']
    .flatMap((folder) => filesBelow(folder, ['.ts']))
    .filter((path) => !path.startsWith('bench/peers/'));
  if (sources.length === 0) return false;
  const hash = hashOf([...sources, 'tsconfig.json', 'package.json', 'package-lock.json']);
  if (isFresh('typescript', hash) && existsSync(join(ROOT, 'dist'))) return false;
  setStamp('typescript', undefined);
  // The incremental state says what lies in dist; without dist it would skip the writing.
  if (!existsSync(join(ROOT, 'dist')))
    rmSync(join(ROOT, '.cache/tsc.tsbuildinfo'), { force: true });
  await tool('tsc', ['--pretty', 'false']);
  const stems = new Set(sources.map((path) => path.replace(/\.ts$/, '')));
  for (const path of filesBelow('dist', ['.js', '.d.ts'])) {
    const stem = path.replace(/^dist\//, '').replace(/(\.d)?\.(ts|js)$/, '');
    if (!stems.has(stem)) rmSync(join(ROOT, path));
  }
  setStamp('typescript', hash);
  return true;
}

/**
 * @returns {Promise<boolean>} false: nothing had changed
 */
export function build() {
  return withLock('build', async () => {
    const addon = await buildAddon(process.arch, process.env.CC ?? 'cc');
    const typescript = await buildTypeScript();
    return addon || typescript;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await runMain(async () => {
    await build();
    return 0;
  });
}
