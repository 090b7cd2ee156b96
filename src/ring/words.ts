// Looks at words that the other process writes, where they are no `Atomics.load`.
//
// `Atomics.load` is a call of 5 ns in Node, as much as reading a small message takes. On x86 every
// load is an acquire, none overtakes an `Atomics.store` before it, and the compiler keeps accesses
// to typed arrays in their order around such a call: there a plain load does the same. It must not
// be repeated without one between: the compiler may keep what it saw.
import { STRONG_ORDER } from '../sys/platform.js';

/** Reads a word right behind an `Atomics.store` of this thread, in that order for all to see. */
export function loadAfterStore(words: Int32Array, index: number): number {
  return STRONG_ORDER ? (words[index] as number) : Atomics.load(words, index);
}

// Deliberate races: these three, and nothing else, may read what is being written.

/**
 * Reads a word that its writer may be storing at this moment; orders nothing. Whoever calls this
 * says why either value is right.
 */
export function glanceAt(words: Int32Array, index: number): number {
  return words[index] as number;
}

/** A word's value: what is read behind it may be written meanwhile; `endRace` tells. */
export function beginRace(words: Int32Array, index: number): number {
  // ACQUIRE: what the writer did before it stored this is seen.
  return Atomics.load(words, index);
}

/**
 * The word's value behind all that was read since `beginRace`, for who counts what the writer has
 * begun meanwhile.
 * @param own - a word of private memory.
 */
export function endRace(words: Int32Array, index: number, own: Int32Array): number {
  // On arm64 plain loads may sink below a load-acquire, but not below a store-release, and no
  // load-acquire overtakes that: store to a private word, then load. x86 keeps loads in order.
  if (!STRONG_ORDER) Atomics.store(own, 0, 0);
  return Atomics.load(words, index);
}
