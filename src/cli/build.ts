// `ukshm build`: compiles the addon on a machine that no prebuilt one fits (another C library,
// another processor). Needs a C compiler and the headers of Node-API, and nothing from the network.
// Imports nothing that loads the addon.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { addonPath, platformName } from '../sys/platform.js';
import type { Feature } from '../sys/probe.js';
import { print, printJson } from './print.js';
import { formatMs } from './text.js';

/** The package's own folder. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Where the sources include it from: the file that tells a folder of headers. */
const HEADER = 'node_api.h';
const PACKAGED_HEADERS = 'node_modules/node-api-headers/include';
const COMPILERS: readonly string[] = ['cc', 'gcc', 'clang'];

/** The addon could not be built; the message says what to do. */
export class BuildError extends Error {
  override readonly name = 'BuildError';
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

interface Built {
  readonly addon: string;
  readonly compiler: string;
  readonly headers: string;
  readonly milliseconds: number;
}

export function addBuild(program: Command): void {
  program
    .command('build')
    .description('compile the addon for this machine, where no prebuilt one fits')
    .option('--headers <folder>', `the folder of ${HEADER}`)
    .option('--json', 'report in JSON')
    .addHelpText('after', '\nThe compiler is $CC, or else cc, gcc or clang.')
    .action(({ headers, json }: { headers?: string; json?: true }) => {
      const built = build(headers);
      if (json) printJson(built);
      else print(`${built.addon}\nbuilt in ${formatMs(built.milliseconds)}, and it loads`);
    });
}

/** Whether `ukshm build` would find what it needs; for `ukshm doctor`. */
export function buildFeature(): Feature {
  const name = 'ukshm build';
  const use = 'only where no prebuilt addon fits';
  try {
    const compiler = findCompiler();
    const headers = findHeaders(undefined);
    return { name, available: true, why: `${compiler}, ${headers}; needed ${use}`, cure: '' };
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    const [why, cure] = error.message.split(': ');
    return { name, available: false, why: `${why}; needed ${use}`, cure };
  }
}

function build(headers: string | undefined): Built {
  const begin = performance.now();
  if (process.platform !== 'linux') {
    throw new BuildError('ERR_UKSHM_UNSUPPORTED', `ukshm needs Linux; this is ${process.platform}`);
  }
  const native = join(ROOT, 'native');
  const sources = readdirSync(native).filter((name) => name.endsWith('.c'));
  const include = findHeaders(headers);
  const compiler = findCompiler();
  const addon = addonPath(platformName());
  // The new file takes the place of the old one, which a running process may have mapped.
  const fresh = `${addon}.${process.pid}`;
  try {
    mkdirSync(dirname(addon), { recursive: true });
    compile(compiler, ['@cc-flags', '-I', include, '-o', fresh, ...sources], native);
    checkThatItLoads(fresh);
    renameSync(fresh, addon);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EROFS') throw error;
    throw new BuildError(code, `cannot write ${dirname(addon)}: ${message}`);
  } finally {
    rmSync(fresh, { force: true });
  }
  return { addon, compiler, headers: include, milliseconds: performance.now() - begin };
}

function findHeaders(asked: string | undefined): string {
  if (asked !== undefined) {
    if (existsSync(join(asked, HEADER))) return resolve(asked);
    throw new BuildError('ENOENT', `${asked} has no ${HEADER}`);
  }
  const candidates = [
    // The tarball brings them; a clone has them from npm.
    join(ROOT, 'native/include'),
    join(ROOT, PACKAGED_HEADERS),
    join(process.cwd(), PACKAGED_HEADERS),
    // As Node's own archives and most distributions have them.
    resolve(dirname(process.execPath), '../include/node'),
  ];
  const found = candidates.find((folder) => folder && existsSync(join(folder, HEADER)));
  if (found !== undefined) return found;
  throw new BuildError(
    'ERR_UKSHM_NO_HEADERS',
    `${HEADER} is not on this machine: 'npm install --save-dev node-api-headers' brings it here, ` +
      `or --headers names its folder`,
  );
}

function findCompiler(): string {
  const candidates = process.env.CC ? [process.env.CC] : COMPILERS;
  const found = candidates.find((name) => spawnSync(name, ['--version']).status === 0);
  if (found !== undefined) return found;
  throw new BuildError(
    'ERR_UKSHM_NO_COMPILER',
    `no C compiler (${candidates.join(', ')}) runs here: on Debian or Ubuntu ` +
      `'apt-get install gcc libc6-dev' brings one, on Alpine 'apk add gcc musl-dev'`,
  );
}

function compile(compiler: string, args: readonly string[], folder: string): void {
  const { status, stderr, error } = spawnSync(compiler, args, { cwd: folder, encoding: 'utf8' });
  if (status === 0) return;
  const first = stderr.split('\n').find((line) => /error/.test(line)) ?? stderr.trim();
  const what = error?.message ?? first;
  throw new BuildError('ERR_UKSHM_COMPILER', `${compiler} ended with status ${status}: ${what}`);
}

/** In a process of its own: an addon that is wrong may take the process with it. */
function checkThatItLoads(path: string): void {
  const script = `process.dlopen({ exports: {} }, ${JSON.stringify(path)})`;
  const { status, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  if (status === 0) return;
  const reason = stderr.split('\n').find((line) => line.startsWith('Error')) ?? stderr.trim();
  throw new BuildError('ERR_UKSHM_ADDON', `what was compiled does not load: ${reason}`);
}
