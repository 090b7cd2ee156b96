// Where the sources lie, seen from the compiled tests in dist/test/house.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** The folder of package.json. */
export const ROOT: string = fileURLToPath(new URL('../../..', import.meta.url));

/**
 * Reads all files below `folder` whose names end in `ending`.
 *
 * @returns text by path relative to the root, such as `src/ring/ring.ts`
 */
export function readBelow(folder: string, ending: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of readdirSync(join(ROOT, folder), {
    recursive: true,
    encoding: 'utf8',
  }).sort()) {
    if (name.endsWith(ending)) {
      files.set(join(folder, name), readFileSync(join(ROOT, folder, name), 'utf8'));
    }
  }
  return files;
}

/** Reads a file of the package's root folder. */
export function readRoot(name: string): string {
  return readFileSync(join(ROOT, name), 'utf8');
}

interface Stamps {
  withLock<T>(name: string, work: () => Promise<T>): Promise<T>;
}

/** Runs an example while no other test runs one: the same example listens at the same name. */
export async function withExampleLock(work: () => void): Promise<void> {
  const script = pathToFileURL(join(ROOT, 'scripts/lib/stamp.mjs')).href;
  const { withLock } = (await import(script)) as Stamps;
  await withLock('examples', async () => work());
}
