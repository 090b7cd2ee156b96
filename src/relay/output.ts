// Where the output goes, and its two names: the temporary one while it grows, its own when it is
// complete. Used by the supervisor; the writer opens what is planned here.
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { OutputFile } from './control.js';

/** NAME_MAX of Linux, less the rest of a temporary name. */
const BASE_BYTES_MAX = 255 - '.'.length - '.ukshm-4294967295-00000000'.length;

/**
 * Plans the output: a file gets a temporary name beside it; what is no regular file (a device, a
 * FIFO) is written to directly.
 *
 * @param output - a path, `-` for standard output, `undefined` for nowhere.
 * @throws an error of the file system: a folder, or a path that cannot be looked at.
 */
export function planOutput(output: string | undefined): OutputFile {
  if (output === undefined) return { kind: 'none' };
  if (output === '-') return { kind: 'stdout' };
  const there = statSync(output, { throwIfNoEntry: false });
  if (there?.isDirectory()) {
    throw Object.assign(new Error(`${output} is a folder`), { code: 'EISDIR' });
  }
  if (there !== undefined && !there.isFile()) return { kind: 'direct', path: output };
  // Through a symbolic link: the file that it names is replaced, not the link.
  const path = there === undefined ? resolve(output) : realpathSync(output);
  return {
    kind: 'file',
    path,
    temporary: join(dirname(path), temporaryName(basename(path))),
    mode: there === undefined ? undefined : there.mode & 0o7777,
  };
}

function temporaryName(name: string): string {
  let base = name;
  while (Buffer.byteLength(base) > BASE_BYTES_MAX) base = base.slice(0, -1);
  return `.${base}.ukshm-${process.pid}-${randomBytes(4).toString('hex')}`;
}

/** Gives a complete file its name, durably. */
export function publishOutput(output: OutputFile): void {
  if (output.kind !== 'file') return;
  renameSync(output.temporary, output.path);
  const folder = openSync(dirname(output.path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Removes what was not completed; safe at any time, any number of times. */
export function discardOutput(output: OutputFile): void {
  if (output.kind === 'file') rmSync(output.temporary, { force: true });
}
