// @ts-check
// The Debian packages that some tests need. Each test looks for itself whether its tool is there and
// skips with the reason; this only makes sure that on Debian and Ubuntu, as root, it is.
import { existsSync } from 'node:fs';
import {
  canFetchKernelHeaders,
  fetchKernelHeaders,
  haveKernelHeaders,
} from '../kernel-headers.mjs';
import { run } from './run.mjs';
import { isFresh, setStamp } from './stamp.mjs';

/** Package, and a file that proves that it is there. */
const TEST_PACKAGES = /** @type {const} */ ([
  ['gcc-aarch64-linux-gnu', '/usr/bin/aarch64-linux-gnu-gcc'],
  ['libc6-dev-arm64-cross', '/usr/aarch64-linux-gnu/include/stdio.h'],
  ['libstdc++6-arm64-cross', '/usr/aarch64-linux-gnu/lib/libstdc++.so.6'],
  ['qemu-user', '/usr/bin/qemu-aarch64'],
  ['strace', '/usr/bin/strace'],
  ['python3', '/usr/bin/python3'],
  ['python3-pip', '/usr/bin/pip3'],
]);

const STAMP = 'system-packages';
/** After a failure (no network, say) it is not tried again for so long. */
const RETRY_MS = 3_600_000;

/**
 * Installs what is missing, and fetches the newest kernel headers.
 *
 * @returns {Promise<string | false>} what was done, for the user; false: nothing was missing, or nothing
 *   can be done here
 */
export async function installPackages() {
  const missing = missingPackages();
  const headers = !haveKernelHeaders() && canFetchKernelHeaders();
  if (missing.length === 0 && !headers) return false;
  if (isFresh(STAMP, stampOf(missing))) return false;
  const said = [];
  if (missing.length > 0) {
    const there = await aptInstall(missing);
    said.push(`${there ? 'installed' : 'could not install'} ${missing.join(' ')}`);
  }
  if (headers) {
    const there = await fetchKernelHeaders();
    said.push(`${there ? 'fetched' : 'could not fetch'} the newest kernel headers`);
  }
  setStamp(STAMP, stampOf(missingPackages()));
  return said.join(', ');
}

/** @param {string[]} missing */
function stampOf(missing) {
  return `${missing.join(' ')} ${Math.floor(Date.now() / RETRY_MS)}`;
}

/** @returns {string[]} the packages that are missing, when they can be installed here */
function missingPackages() {
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return [];
  return TEST_PACKAGES.filter(([, proof]) => !existsSync(proof)).map(([name]) => name);
}

/**
 * @param {string[]} names
 * @returns {Promise<boolean>} whether they are there now
 */
async function aptInstall(names) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['install', '-y', '-qq', '--no-install-recommends', ...names];
  if ((await run('apt-get', install, { env })).status === 0) return true;
  await run('apt-get', ['update', '-qq'], { env });
  return (await run('apt-get', install, { env })).status === 0;
}
