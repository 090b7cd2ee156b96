// Compiles hostile.c for the tests that need it.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../house/root.js';
import type { Owner } from './actors.js';

const COMPILER = process.env.CC ?? 'cc';

/** Why the program cannot be built here; `false` if it can. */
export const cannotCompile: string | false =
  spawnSync(COMPILER, ['--version']).status === 0
    ? false
    : 'not possible here: no C compiler; apt-get install gcc libc6-dev';

/** The path of the program, in a folder that is removed at the end. */
export function compileHostile(owner: Owner): string {
  const folder = mkdtempSync(join(tmpdir(), 'ukshm-hostile-'));
  owner.after(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'hostile');
  const source = join(ROOT, 'test/process/hostile.c');
  const flags = ['-std=c11', '-O2', '-Wall', '-Wextra', '-pthread'];
  const { status, stderr } = spawnSync(COMPILER, [...flags, '-o', program, source]);
  if (status !== 0) throw new Error(`hostile.c does not compile: ${stderr}`);
  return program;
}
