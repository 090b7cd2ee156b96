// @ts-check
// Content stamps: a step is skipped when the bytes that it depends on are the ones of last time.
import { createHash } from 'node:crypto';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from './run.mjs';

/** What scripts keep between runs; everything in it can be made again. */
export const CACHE = join(ROOT, '.cache');

/**
 * All files below `folder` (relative to the root) whose name ends in one of `endings`, sorted.
 *
 * @param {string} folder
 * @param {string[]} endings
 * @returns {string[]} paths relative to the root
 */
export function filesBelow(folder, endings) {
  if (!existsSync(join(ROOT, folder))) return [];
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length))
    .filter((path) => !path.includes('node_modules/'))
    .sort();
}

/**
 * @param {string[]} files - relative to the root; a missing one counts as empty
 * @param {string[]} [more] - anything else that the step depends on
 * @returns {string}
 */
export function hashOf(files, more = []) {
  const hash = createHash('sha256');
  for (const file of files) {
    const path = join(ROOT, file);
    hash
      .update(`${file}\0`)
      .update(existsSync(path) ? readFileSync(path) : '')
      .update('\0');
  }
  for (const text of more) hash.update(`${text}\0`);
  return hash.digest('hex');
}

/**
 * @param {string} name
 * @param {string} hash
 * @returns {boolean} whether the step `name` ended well with this hash
 */
export function isFresh(name, hash) {
  const path = join(CACHE, `${name}.stamp`);
  return existsSync(path) && readFileSync(path, 'utf8') === hash;
}

/**
 * @param {string} name
 * @param {string | undefined} hash - undefined: the step must run again
 */
export function setStamp(name, hash) {
  mkdirSync(CACHE, { recursive: true });
  const path = join(CACHE, `${name}.stamp`);
  if (hash === undefined) rmSync(path, { force: true });
  else writeFileSync(path, hash);
}

/**
 * Runs `work` while no other process runs under the same lock (two terminals, one clone).
 *
 * @template T
 * @param {string} name
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(name, work) {
  mkdirSync(CACHE, { recursive: true });
  const path = join(CACHE, `${name}.lock`);
  while (!tryLock(path)) await sleep(100);
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}

/**
 * @param {string} path
 * @returns {boolean}
 */
function tryLock(path) {
  // The link makes name and content appear at once.
  const own = `${path}.${process.pid}`;
  writeFileSync(own, String(process.pid));
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
  } finally {
    rmSync(own);
  }
  // A lock whose owner died is taken away.
  const owner = existsSync(path) ? readFileSync(path, 'utf8') : '';
  if (owner !== '' && !existsSync(`/proc/${owner}`)) rmSync(path, { force: true });
  return false;
}
