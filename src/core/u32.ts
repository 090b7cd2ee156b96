// Arithmetic on free-running u32 cursors and on sizes. Imports nothing.

/** How far `ahead` is in front of `behind`, modulo 2^32. */
export function distance(ahead: number, behind: number): number {
  return (ahead - behind) >>> 0;
}

/** The least multiple of `unit` that is not below `value`; exact below 2^53. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** The least k with 2^k >= value, for 1 <= value <= 2^31. */
export function ceilLog2(value: number): number {
  return value <= 1 ? 0 : 32 - Math.clz32(value - 1);
}
