// Which party runs now. Everything runs in one thread, so there is one such place.
import type { Op } from './op.js';

/** What of a party its promises and stubs use. */
export interface Running {
  readonly index: number;
  readonly name: string;
  /** Microtasks. */
  readonly jobs: (() => unknown)[];
  /** Promises of this party that were rejected. */
  readonly rejections: { readonly unhandled: { readonly reason: unknown } | undefined }[];
  /** What it is about to do. */
  pending: Op | undefined;
  /** What it is doing. */
  doing: Op | undefined;
  /** It reads what may be written meanwhile, and will judge it (runtime.ts). */
  races: boolean;
}

/** Nobody: what runs before the parties do, behind them, and in unit tests. */
export const nobody: Running = {
  index: -1,
  name: 'set-up',
  jobs: [],
  rejections: [],
  pending: undefined,
  doing: undefined,
  races: false,
};

export const current: { party: Running } = { party: nobody };
