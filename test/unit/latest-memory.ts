// A piece of memory with one slot of latest values, for the tests of the protocol alone.
import { LATEST_BUFFERS, type LatestWords } from '../../src/ring/latest.js';

export const LATEST_AT: LatestWords & { readonly values: number } = {
  changes: 0,
  directory: 32,
  versions: 64,
  values: 96,
};

/** What a worker needs that sets the slot. */
export interface LatestJob {
  readonly buffer: SharedArrayBuffer;
  readonly valueWords: number;
}

/** Bytes for one slot whose values have so many words. */
export function latestBytes(valueWords: number): number {
  return (LATEST_AT.values + LATEST_BUFFERS * valueWords) * 4;
}
