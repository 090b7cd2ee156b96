// In place of src/sys/platform.ts. The order of the build is that of x86: the helper for loads behind
// stores is a plain load there, and so it is here.
export const STRONG_ORDER = true;

export function platformName(): string {
  return 'proof';
}
