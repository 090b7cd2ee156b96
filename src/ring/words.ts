// A look at a word that the other process writes.
//
// `Atomics.load` is a call of 5 ns in Node, as much as reading a small message takes. On x86 every
// load is an acquire, none overtakes an `Atomics.store` before it, and the compiler keeps accesses
// to typed arrays in their order around such a call: there a plain load does the same. It must not
// be repeated without one between: the compiler may keep what it saw.
import { STRONG_ORDER } from '../sys/platform.js';

/** Reads a word right behind an `Atomics.store` of this thread, in that order for all to see. */
export const loadAfterStore: (words: Int32Array, index: number) => number = STRONG_ORDER
  ? (words, index) => words[index] as number
  : (words, index) => Atomics.load(words, index);

/**
 * Reads a word that its writer may be storing at this moment: a deliberate race, which orders nothing.
 * Whoever calls this says why either value is right.
 */
export function glanceAt(words: Int32Array, index: number): number {
  return words[index] as number;
}
