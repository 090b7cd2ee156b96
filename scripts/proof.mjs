// @ts-check
// `npm run proof [-- --help]`: sets up what is missing, then tries all that can be tried and prints a
// report (docs/PROOF.md).
import { inTheForeground, runMain } from './lib/run.mjs';
import { setUp } from './setup.mjs';

await runMain(async () => {
  await setUp();
  const script = new URL('../dist/test/proof/command.js', import.meta.url).pathname;
  return inTheForeground(process.execPath, [script, ...process.argv.slice(2)]);
});
