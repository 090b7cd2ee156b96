// @ts-check
// The newest kernel headers, for test/abi: Debian unstable's linux-libc-dev, downloaded by apt (which
// checks its signature) from this machine's own mirror and unpacked into .cache/kernel-headers. It is
// never installed, and apt's own lists and settings stay as they are.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mustRun, run, runMain } from './lib/run.mjs';
import { CACHE, withLock } from './lib/stamp.mjs';

const FOLDER = join(CACHE, 'kernel-headers');
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const DEFAULT_MIRROR = 'http://deb.debian.org/debian';
const TIMEOUT_MS = 120_000;

/** @returns {string} the URL under which this machine finds Debian itself */
function mirror() {
  const folder = '/etc/apt/sources.list.d';
  const extra = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
  for (const file of ['/etc/apt/sources.list', ...extra]) {
    if (!/\.(list|sources)$/.test(file) || !existsSync(file)) continue;
    // One-line style: deb [options] URL suite; deb822 style: URIs: URL.
    const found = /^(?:deb\s+(?:\[[^\]]*\]\s+)?|URIs:\s*)(\S+\/debian\/?)(?=\s|$)/m.exec(
      readFileSync(file, 'utf8'),
    );
    if (found) return found[1];
  }
  return DEFAULT_MIRROR;
}

/** @returns {boolean} */
export function haveKernelHeaders() {
  return existsSync(join(FOLDER, 'usr/include/linux/types.h'));
}

/** @returns {boolean} whether this machine has what the download needs */
export function canFetchKernelHeaders() {
  return [KEYRING, '/usr/bin/apt-get', '/usr/bin/dpkg-deb'].every((path) => existsSync(path));
}

/**
 * Downloads and unpacks the headers unless they are there.
 *
 * @returns {Promise<boolean>} false: they are not there now; test/abi uses the system's
 */
export async function fetchKernelHeaders() {
  if (haveKernelHeaders()) return true;
  if (!canFetchKernelHeaders()) return false;
  return withLock('kernel-headers', async () => haveKernelHeaders() || (await download()));
}

/** @returns {Promise<boolean>} */
async function download() {
  const fresh = `${FOLDER}.new`;
  rmSync(fresh, { recursive: true, force: true });
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'etc']) {
    mkdirSync(join(fresh, 'apt', folder), { recursive: true });
  }
  const list = join(fresh, 'apt/etc/sources.list');
  writeFileSync(list, `deb [signed-by=${KEYRING}] ${mirror()} unstable main\n`);
  const settings = [
    `Dir::State=${fresh}/apt/state`,
    `Dir::Cache=${fresh}/apt/cache`,
    `Dir::Etc::sourcelist=${list}`,
    'Dir::Etc::sourceparts=/dev/null',
    'APT::Sandbox::User=',
    'Acquire::Languages=none',
    'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false',
  ].flatMap((setting) => ['-o', setting]);
  const options = { cwd: fresh, timeoutMs: TIMEOUT_MS };
  const update = await run('apt-get', [...settings, '-qq', 'update'], options);
  if (update.status !== 0) return false;
  const fetched = await run('apt-get', [...settings, '-qq', 'download', 'linux-libc-dev'], options);
  const deb = readdirSync(fresh).find((name) => name.endsWith('.deb'));
  if (fetched.status !== 0 || deb === undefined) return false;
  await mustRun('unpacking', 'dpkg-deb', ['-x', join(fresh, deb), fresh]);
  rmSync(join(fresh, 'apt'), { recursive: true });
  rmSync(join(fresh, deb));
  rmSync(FOLDER, { recursive: true, force: true });
  renameSync(fresh, FOLDER);
  return true;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await runMain(async () => {
    const there = await fetchKernelHeaders();
    console.log(there ? FOLDER : `cannot download them here (needs apt and ${KEYRING})`);
    return there ? 0 : 1;
  });
}
