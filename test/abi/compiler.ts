// Asks a C compiler about the kernel's headers. Everything is decided while compiling, so the same check
// serves a foreign architecture, whose programs cannot run here.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../house/root.js';

/** Debian unstable's headers, unpacked by scripts/kernel-headers.mjs. */
const NEWEST_HEADERS: string = join(ROOT, '.cache/kernel-headers/usr/include');

/** A compiler that makes code for one of the architectures that ukshm supports. */
export interface Target {
  readonly arch: string;
  readonly compiler: string;
  /** What its headers are called below an include folder. */
  readonly triple: string;
  readonly debianPackage: string;
}

export const TARGETS: readonly Target[] = [
  { arch: 'x64', triple: 'x86_64-linux-gnu', debianPackage: 'gcc-x86-64-linux-gnu' },
  { arch: 'arm64', triple: 'aarch64-linux-gnu', debianPackage: 'gcc-aarch64-linux-gnu' },
].map((one) => ({ ...one, compiler: one.arch === process.arch ? 'cc' : `${one.triple}-gcc` }));

/** Whether the newest headers are there; without them the system's may lack newer numbers. */
export const haveNewestHeaders: boolean = existsSync(NEWEST_HEADERS);

/** A number of ours and the C expression that must have its value. */
export interface Claim {
  readonly name: string;
  readonly value: number;
  readonly expression: string;
}

export interface Verdict {
  /** Claims whose value is another one in the headers. */
  readonly wrong: Claim[];
  /** Claims whose expression the headers do not know. */
  readonly unknown: Claim[];
  /** Anything else that the compiler said, such as a header that is not there. */
  readonly trouble: string;
}

export function hasCompiler(target: Target): boolean {
  return spawnSync(target.compiler, ['--version']).status === 0;
}

/** Compiles one `_Static_assert` a claim, each on a line of its own, and reads what failed. */
export function judge(
  target: Target,
  headers: readonly string[],
  claims: readonly Claim[],
): Verdict {
  const prologue = ['#define _GNU_SOURCE', '#include <stddef.h>'];
  for (const header of headers) prologue.push(`#include <${header}>`);
  const asserts = claims.map(
    ({ expression, value }) =>
      `_Static_assert((long long)(${expression}) == ${value}LL, "differs");`,
  );
  const folders = [NEWEST_HEADERS, join(NEWEST_HEADERS, target.triple)];
  const args = ['-std=gnu11', '-fsyntax-only', '-fmax-errors=0', '-x', 'c', '-'];
  if (haveNewestHeaders) args.unshift(...folders.flatMap((folder) => ['-isystem', folder]));
  const result = spawnSync(target.compiler, args, {
    input: `${[...prologue, ...asserts].join('\n')}\n`,
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  });
  const wrong: Claim[] = [];
  const unknown = new Set<Claim>();
  const trouble: string[] = [];
  for (const line of result.stderr.split('\n').filter((text) => text.includes('error:'))) {
    const [, number] = /^<stdin>:(\d+):/.exec(line) ?? [];
    const claim = number === undefined ? undefined : claims[Number(number) - prologue.length - 1];
    if (claim === undefined) trouble.push(line);
    else if (line.includes('static assertion failed')) wrong.push(claim);
    else unknown.add(claim);
  }
  return { wrong, unknown: [...unknown], trouble: trouble.join('\n') };
}
