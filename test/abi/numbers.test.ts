// Every number that src/abi exports is the kernel's, for x64 and for arm64.
// The head comment of a module there names its headers. An exported constant is the C macro of the
// same name, unless the comment above it gives the expression:
//
//     /** C: `offsetof(struct io_uring_sqe, user_data)` */
//     export const SQE_USER_DATA_OFFSET = 32;
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ROOT, readBelow } from '../house/root.js';
import { type Claim, hasCompiler, haveNewestHeaders, judge, TARGETS } from './compiler.js';

/** The headers that the comment at the head of a module names. */
function headersOf(source: string): string[] {
  const head = /^(?:\/\/.*\n)+|^\/\*[\s\S]*?\*\//.exec(source)?.[0] ?? '';
  return [...head.matchAll(/\b[a-z][\w-]*\/[\w/-]+\.h\b/g)].map(([name]) => name);
}

async function claimsOf(path: string, source: string): Promise<Claim[]> {
  const compiled = join(ROOT, 'dist', path.replace(/\.ts$/, '.js'));
  const exported: Record<string, unknown> = await import(pathToFileURL(compiled).href);
  const claims: Claim[] = [];
  for (const [name, value] of Object.entries(exported)) {
    if (typeof value !== 'number') continue;
    const comment = new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\\s*export const ${name}\\b`).exec(
      source,
    );
    const expression = /C: `([^`]+)`/.exec(comment?.[1] ?? '')?.[1] ?? name;
    claims.push({ name, value, expression });
  }
  return claims;
}

function list(claims: readonly Claim[]): string {
  return claims.map(({ name, value }) => `${name} = ${value}`).join(', ');
}

describe('the numbers of src/abi', () => {
  for (const [path, source] of readBelow('src/abi', '.ts')) {
    for (const target of TARGETS) {
      it(`${path} agrees with the kernel's headers for ${target.arch}`, async (t) => {
        if (!hasCompiler(target)) {
          t.skip(`no ${target.compiler}; Debian: apt-get install ${target.debianPackage}`);
          return;
        }
        const headers = headersOf(source);
        assert.ok(headers.length > 0, `the head comment of ${path} names no header`);
        const claims = await claimsOf(path, source);
        const { wrong, unknown, trouble } = judge(target, headers, claims);
        assert.equal(trouble, '');
        assert.equal(list(wrong), '', `other values in ${headers.join(', ')}`);
        if (haveNewestHeaders) assert.equal(list(unknown), '', `not in ${headers.join(', ')}`);
        else if (unknown.length > 0) {
          t.skip(`not possible here: the system's headers do not have ${list(unknown)}`);
        }
      });
    }
  }
});

describe('the comparison with the headers', () => {
  const [target] = TARGETS.filter(({ arch }) => arch === process.arch);
  const claim = (name: string, value: number, expression: string = name): Claim => ({
    name,
    value,
    expression,
  });

  it('finds a wrong value, an unknown name, a wrong offset and a missing header', () => {
    const good = [claim('EPERM', 1), claim('size', 4, 'sizeof(int)')];
    const bad = claim('ENOENT', 3);
    const offset = claim('OFFSET', 5, 'offsetof(struct flock, l_whence)');
    const odd = claim('ENOSUCHTHING', 1);
    const headers = ['linux/errno.h', 'linux/fcntl.h'];
    const verdict = judge(target, headers, [...good, bad, offset, odd]);
    assert.deepEqual(verdict, { wrong: [bad, offset], unknown: [odd], trouble: '' });
    assert.match(judge(target, ['linux/no-such.h'], good).trouble, /no-such/);
  });
});
