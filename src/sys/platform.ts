// What this Node runs on, and where the addon for it lies. Loads nothing.
import { fileURLToPath } from 'node:url';

/** A load never overtakes a load, nor a locked store before it: x86. */
export const STRONG_ORDER: boolean = process.arch === 'x64';

interface ProcessReport {
  header?: { glibcVersionRuntime?: string };
}

/** The platform, architecture and C library that this Node runs on, as prebuilds/ names them. */
export function platformName(): string {
  const report = process.report?.getReport() as ProcessReport | undefined;
  const libc = report?.header?.glibcVersionRuntime === undefined ? 'musl' : 'glibc';
  return process.platform === 'linux'
    ? `linux-${process.arch}-${libc}`
    : `${process.platform}-${process.arch}`;
}

/** Where the addon of this package lies for a platform name. */
export function addonPath(platform: string): string {
  return fileURLToPath(new URL(`../../../prebuilds/${platform}/ukshm.node`, import.meta.url));
}
