// An empty project beside the house, as a user would have it, with the packed tarball installed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from './root.js';

const TIMEOUT_MS = 180_000;

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  /** Standard output and standard error. */
  readonly output: string;
}

/** Runs a program in `folder`; the settings of an npm around us do not count there. */
export function runIn(
  folder: string,
  program: string,
  args: readonly string[],
  more: NodeJS.ProcessEnv = {},
): Ended {
  const kept = Object.entries(process.env).filter(([name]) => !/^npm_(?!config_)/.test(name));
  const env: NodeJS.ProcessEnv = { ...Object.fromEntries(kept), ...more };
  delete env.npm_config_local_prefix;
  const result = spawnSync(program, args, {
    cwd: folder,
    env,
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
  });
  const output = `${result.stdout}${result.stderr}${result.error ?? ''}`;
  return { status: result.status, stdout: result.stdout, output };
}

/** Runs npm there: the one around us, if one is. */
export function npmIn(
  folder: string,
  args: readonly string[],
  more: NodeJS.ProcessEnv = {},
): Ended {
  const cli = process.env.npm_execpath;
  if (cli?.endsWith('npm-cli.js')) return runIn(folder, process.execPath, [cli, ...args], more);
  return runIn(folder, 'npm', args, more);
}

function must(what: string, { status, output }: Ended): void {
  if (status !== 0) throw new Error(`${what}: status ${status}\n${output}`);
}

export interface Project {
  readonly folder: string;
  /** The packed tarball. */
  readonly tarball: string;
  /** The package as installed. */
  readonly installed: string;
  /** Whether the tarball has both architectures' addons. */
  readonly complete: boolean;
  remove(): void;
}

/** Packs the house and installs it into an empty project, without install scripts. */
export function makeProject(): Project {
  const folder = mkdtempSync(join(tmpdir(), 'ukshm-project-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    const foreign = process.arch === 'x64' ? 'aarch64' : 'x86_64';
    const complete = existsSync(`/usr/bin/${foreign}-linux-gnu-gcc`);
    const settings = complete ? {} : { UKSHM_PACK_HOST_ONLY: '1' };
    mkdirSync(join(folder, 'pack'));
    must('npm pack', npmIn(ROOT, ['pack', '--pack-destination', join(folder, 'pack')], settings));
    const tarball = join(folder, 'pack', readdirSync(join(folder, 'pack'))[0]);
    const app = join(folder, 'app');
    mkdirSync(app);
    writeFileSync(join(app, 'package.json'), '{ "name": "app", "private": true }\n');
    const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'];
    must('npm install', npmIn(app, ['install', ...quiet, tarball]));
    return { folder: app, tarball, installed: join(app, 'node_modules/ukshm'), complete, remove };
  } catch (error) {
    remove();
    throw error;
  }
}
