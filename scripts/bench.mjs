// @ts-check
// `npm run bench -- SUITE [options]`: sets up what is missing, then runs bench/main.ts.
import { join } from 'node:path';
import { inTheForeground, ROOT, runMain } from './lib/run.mjs';
import { setUp } from './setup.mjs';

await runMain(async () => {
  await setUp();
  const main = join(ROOT, 'dist/bench/main.js');
  return await inTheForeground(process.execPath, [main, ...process.argv.slice(2)]);
});
