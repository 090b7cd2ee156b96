// A caller's bytes as 32-bit words, remembered for callers that come again with the same view.
//
// `set` costs a flat 15 ns, and asking a view for its buffer as much: words are faster up to some
// 256 bytes, but only for a view that is used again, as a program's send buffer is.

const NO_WORDS = new Int32Array(0);

export class WordView {
  #bytes: Uint8Array | undefined = undefined;
  #candidate: Uint8Array | undefined = undefined;
  #lengthBytes = 0;
  #words: Int32Array = NO_WORDS;

  /** The words of `bytes`, at its second use in a row; else an empty array. */
  of(bytes: Uint8Array): Int32Array {
    if (bytes === this.#bytes && bytes.length === this.#lengthBytes) return this.#words;
    return this.#remember(bytes);
  }

  #remember(bytes: Uint8Array): Int32Array {
    const again = bytes === this.#candidate;
    this.#bytes = undefined;
    this.#candidate = bytes;
    if (!again || (bytes.byteOffset & 3) !== 0) return NO_WORDS;
    this.#bytes = bytes;
    this.#lengthBytes = bytes.length;
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    return this.#words;
  }
}

/** Copies `count` words. */
export function copyWords(
  source: Int32Array,
  from: number,
  target: Int32Array,
  to: number,
  count: number,
): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    target[to + i] = source[from + i] as number;
    target[to + i + 1] = source[from + i + 1] as number;
    target[to + i + 2] = source[from + i + 2] as number;
    target[to + i + 3] = source[from + i + 3] as number;
  }
  for (; i < count; i++) target[to + i] = source[from + i] as number;
}
