// Bytes that tell their length and seed: what arrives shifted, cut or mixed up is noticed.

const TABLE_BYTES = 65536;
const tables = new Map<number, Buffer>();

/** A piece of pseudo-random bytes, repeated with a counter at the head of each repetition. */
function table(seed: number): Buffer {
  const known = tables.get(seed & 15);
  if (known !== undefined) return known;
  const bytes = Buffer.allocUnsafe(TABLE_BYTES);
  let state = ((seed & 15) + 1) * 0x9e3779b1;
  for (let i = 0; i < TABLE_BYTES; i += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state, i);
  }
  tables.set(seed & 15, bytes);
  return bytes;
}

/** `lengthBytes` bytes that depend on length and seed; the last ones on the whole seed. */
export function pattern(lengthBytes: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(lengthBytes);
  const piece = table(seed);
  for (let at = 0; at < lengthBytes; at += TABLE_BYTES) {
    piece.copy(bytes, at, 0, Math.min(TABLE_BYTES, lengthBytes - at));
    if (at + 4 <= lengthBytes) bytes.writeUInt32LE(at / TABLE_BYTES, at);
  }
  if (lengthBytes >= 12) {
    bytes.writeUInt32LE(lengthBytes, lengthBytes - 8);
    bytes.writeUInt32LE(seed >>> 0, lengthBytes - 4);
  }
  return bytes;
}

/** Whether `bytes` are those of `pattern`. */
export function isPattern(bytes: Uint8Array, seed: number): boolean {
  return Buffer.compare(bytes, pattern(bytes.length, seed)) === 0;
}
