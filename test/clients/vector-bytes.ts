// Bytes of test vectors, and how the file writes them.

/** Bytes as the file has them: runs of eight and more equal bytes are counted. */
export function toHex(bytes: Uint8Array): string {
  if (bytes.length === 0) return '-';
  const segments: string[] = [];
  let plain = '';
  for (let at = 0; at < bytes.length; ) {
    const byte = (bytes[at] as number).toString(16).padStart(2, '0');
    let end = at + 1;
    while (end < bytes.length && bytes[end] === bytes[at]) end++;
    if (end - at < 8) {
      plain += byte.repeat(end - at);
    } else {
      if (plain !== '') segments.push(plain);
      plain = '';
      segments.push(`${byte}x${end - at}`);
    }
    at = end;
  }
  if (plain !== '') segments.push(plain);
  return segments.join('.');
}

/** The bytes that the file means. */
export function fromHex(hex: string): Buffer {
  if (hex === '-') return Buffer.alloc(0);
  const segments = hex.split('.').map((segment) => {
    const [byte = '', count] = segment.split('x');
    return Buffer.from(count === undefined ? byte : byte.repeat(Number(count)), 'hex');
  });
  return Buffer.concat(segments);
}

/** u32 words, little-endian. */
export function words(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => {
    view.setUint32(i * 4, value, true);
  });
  return bytes;
}

/** `parts` one behind the other, filled up with zeros. */
export function block(lengthBytes: number, ...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  bytes.set(Buffer.concat(parts));
  return bytes;
}

/** A text without anything beyond Latin-1. */
export function ascii(text: string): Uint8Array {
  return Buffer.from(text, 'latin1');
}

/** A record, padded to 8 bytes. */
export function record(
  type: number,
  id: number,
  payload: Uint8Array,
  length: number = payload.length,
): Uint8Array {
  const bytes = new Uint8Array(8 + ((payload.length + 7) & ~7));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, length, true);
  view.setUint16(2, type, true);
  view.setUint32(4, id, true);
  bytes.set(payload, 8);
  return bytes;
}

/** Where in an outbox what is written. */
export type Patch = readonly [number, Uint8Array];

/** Patches as the file has them. */
export function patches(list: readonly Patch[]): string {
  return list.length === 0 ? '-' : list.map(([at, bytes]) => `${at}=${toHex(bytes)}`).join(';');
}
