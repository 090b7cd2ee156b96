// @ts-check
// Before `npm pack` (package.json, prepack): builds everything that the tarball carries, the addons for
// both architectures and the headers that `ukshm build` compiles against elsewhere.
// UKSHM_PACK_HOST_ONLY=1: only this machine's addon, for a test where there is no cross compiler.
import { copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { addonPath, build, buildAddon, HEADERS } from './build.mjs';
import { mustRun, ROOT, runMain, StepError } from './lib/run.mjs';
import { withLock } from './lib/stamp.mjs';

/** The oldest glibc that the addons must load with: Debian 10, RHEL 8, and Node 20's own need. */
const GLIBC_MAX = [2, 28];

const CROSS = /** @type {Record<string, { compiler: string, package: string }>} */ ({
  arm64: { compiler: 'aarch64-linux-gnu-gcc', package: 'gcc-aarch64-linux-gnu' },
  x64: { compiler: 'x86_64-linux-gnu-gcc', package: 'gcc-x86-64-linux-gnu' },
});

/**
 * @param {string} arch
 * @returns {string} the compiler for it
 */
function compilerFor(arch) {
  if (arch === process.arch) return process.env.CC ?? 'cc';
  const { compiler, package: name } = CROSS[arch];
  if (!existsSync(`/usr/bin/${compiler}`)) {
    throw new StepError(`no ${compiler}. On Debian or Ubuntu: apt-get install ${name}`);
  }
  return compiler;
}

/**
 * @param {string} symbols - what `objdump -T` prints
 * @returns {string[]} the symbols that need a newer glibc than GLIBC_MAX, with their versions
 */
export function tooNew(symbols) {
  const found = [];
  for (const [, major, minor, name] of symbols.matchAll(
    /\(?GLIBC_(\d+)\.(\d+)[\d.]*\)?\s+(\S+)$/gm,
  )) {
    const version = [Number(major), Number(minor)];
    const newer = version[0] - GLIBC_MAX[0] || version[1] - GLIBC_MAX[1];
    if (newer > 0) found.push(`${name} (GLIBC_${version.join('.')})`);
  }
  return found;
}

/** @param {string} arch */
export async function buildFor(arch) {
  await withLock('build', () => buildAddon(arch, compilerFor(arch)));
  const symbols = await mustRun('reading the symbols', 'objdump', ['-T', addonPath(arch)]);
  const newer = tooNew(symbols);
  if (newer.length > 0) {
    throw new StepError(
      `${addonPath(arch)} needs a glibc newer than ${GLIBC_MAX.join('.')}: ${newer.join(', ')}`,
    );
  }
}

function copyHeaders() {
  const target = join(ROOT, 'native/include');
  mkdirSync(target, { recursive: true });
  for (const name of readdirSync(join(ROOT, HEADERS))) {
    if (name.endsWith('.h')) copyFileSync(join(ROOT, HEADERS, name), join(target, name));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await runMain(async () => {
    await build();
    const hostOnly = process.env.UKSHM_PACK_HOST_ONLY === '1';
    for (const arch of hostOnly ? [process.arch] : ['x64', 'arm64']) await buildFor(arch);
    copyHeaders();
    return 0;
  });
}
