// @ts-check
// `npm start`: sets up what is missing, then runs the main job on a file that every machine has,
// Node's own executable. `npm start -- …` passes more arguments to `ukshm relay`.
import { join } from 'node:path';
import { inTheForeground, ROOT, runMain } from './lib/run.mjs';
import { setUp } from './setup.mjs';

await runMain(async () => {
  await setUp();
  const args = process.argv.slice(2);
  const main = join(ROOT, 'dist/src/cli/main.js');
  return await inTheForeground(process.execPath, [main, 'relay', process.execPath, ...args]);
});
