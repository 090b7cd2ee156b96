// @ts-check
// Set-up before `npm start` and `npm test`: packages, addon, TypeScript. Says what took how long, and
// nothing at all when nothing changed. On standard error: standard output belongs to the command.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { npm, ROOT } from './lib/run.mjs';
import { withLock } from './lib/stamp.mjs';

/**
 * @param {string} what
 * @param {() => Promise<boolean | string>} step - false: there was nothing to do; a string says more
 */
export async function timed(what, step) {
  const start = performance.now();
  const done = await step();
  if (done === false) return;
  const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(6);
  console.error(`${what.padEnd(8)} ${seconds} s${done === true ? '' : `  ${done}`}`);
}

/** @returns {boolean} whether node_modules holds what package-lock.json asks for */
function isInstalled() {
  const installed = join(ROOT, 'node_modules/.package-lock.json');
  if (!existsSync(installed)) return false;
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
  const there = JSON.parse(readFileSync(installed, 'utf8')).packages;
  return Object.keys(wanted).every((path) => {
    if (path === '') return true;
    if (there[path] === undefined) return wanted[path].optional === true;
    return there[path].version === wanted[path].version;
  });
}

/** @returns {Promise<boolean>} */
async function install() {
  return withLock('install', async () => {
    if (isInstalled()) return false;
    await npm('npm ci', ['ci']);
    return true;
  });
}

/** Installs and builds what is missing or out of date. */
export async function setUp() {
  await timed('install', install);
  // Imported late: nothing here may need a package before they are installed.
  const { build } = await import('./build.mjs');
  await timed('build', build);
}
