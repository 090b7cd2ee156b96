// What may be done with pages, as words and as flags.
import { invalidArgument } from '../core/errors.js';

/** What a receiver may do: read; write; have them mapped executable. */
export type Grant = 'r' | 'rw' | 'rx' | 'rwx';
/** What the source gives up: writing, executing, or everything. */
export type Drop = 'w' | 'x' | 'wx' | 'rwx';

/** The receiver may read. Every grant holds it. */
export const VMO_GRANT_R = 1;
/** The receiver may write. */
export const VMO_GRANT_W = 2;
/** The receiver's mapping is executable. */
export const VMO_GRANT_X = 4;
/** The source gives up reading, and with it everything: only together with the other two. */
export const VMO_DROP_R = 8;
/** The source gives up writing: what it writes from then on is private to it. */
export const VMO_DROP_W = 16;
/** The source gives up executing, and granting it. */
export const VMO_DROP_X = 32;
/** All grants. */
export const VMO_GRANTALL = 7;
/** All drops: the pages change hands. */
export const VMO_DISOWN = 56;

export const RIGHT_R = 1;
export const RIGHT_W = 2;
export const RIGHT_X = 4;
export const RIGHTS_ALL = 7;
const DROP_SHIFT = 3;

/** Rights as bits. */
export interface Terms {
  readonly grant: number;
  readonly drop: number;
}

/** How an offer's rights may be given. */
export interface TermsOptions {
  readonly grant?: Grant;
  readonly drop?: Drop;
  readonly flags?: number;
}

/** The letters of rights, in the order of `ls -l`. */
export function lettersOf(bits: number): string {
  return `${bits & RIGHT_R ? 'r' : ''}${bits & RIGHT_W ? 'w' : ''}${bits & RIGHT_X ? 'x' : ''}`;
}

function bitsOf(name: string, letters: unknown): number {
  const bits =
    typeof letters === 'string'
      ? (letters.includes('r') ? RIGHT_R : 0) |
        (letters.includes('w') ? RIGHT_W : 0) |
        (letters.includes('x') ? RIGHT_X : 0)
      : 0;
  if (bits === 0 || lettersOf(bits) !== letters) {
    throw invalidArgument(name, letters, `letters of 'rwx', in this order`);
  }
  return bits;
}

/** Rights from words or flags. @throws `ERR_UKSHM_INVALID_ARGUMENT`, contradictions included. */
export function termsOf(options: TermsOptions): Terms {
  const { flags, grant, drop } = options;
  if (flags === undefined) {
    return consistent(
      bitsOf('grant', grant),
      drop === undefined ? 0 : bitsOf('drop', drop),
      `grant '${grant}', drop '${drop ?? ''}'`,
    );
  }
  if (grant !== undefined || drop !== undefined) {
    throw invalidArgument('flags', flags, 'either flags, or grant and drop');
  }
  if (!Number.isInteger(flags) || (flags & ~(VMO_GRANTALL | VMO_DISOWN)) !== 0) {
    throw invalidArgument('flags', flags, 'VMO_GRANT_*, VMO_DROP_*, VMO_DISOWN, or-ed');
  }
  return consistent(flags & VMO_GRANTALL, flags >> DROP_SHIFT, `flags ${flags}`);
}

/** Memory that can be written or executed, but not read, does not exist. */
function consistent(grant: number, drop: number, shown: string): Terms {
  if ((grant & RIGHT_R) === 0) {
    throw invalidArgument('grant', shown, 'a grant with reading in it');
  }
  if ((drop & RIGHT_R) !== 0 && drop !== RIGHTS_ALL) {
    throw invalidArgument('drop', shown, `no drop of reading alone: 'w', 'x', 'wx' or 'rwx'`);
  }
  return { grant, drop };
}
