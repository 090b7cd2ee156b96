// @ts-check
// `npm run lint`, `typecheck`, `docs`: everything that is checked without running the code.
import { runMain, StepError, tool } from './lib/run.mjs';
import { setUp } from './setup.mjs';

/** @type {Record<string, () => Promise<unknown>>} */
const CHECKS = {
  // Formatting, lint rules and import cycles. The layers are a test: test/house/layers.test.ts.
  lint: () =>
    tool('biome', ['ci', '--error-on-warnings', '--colors=off', '--max-diagnostics=100', '.']),
  types: async () => {
    await tool('tsc', ['--noEmit', '--incremental', 'false']);
    await tool('tsc', ['-p', 'tsconfig.scripts.json']);
  },
  // Undocumented exports and broken links are errors; the pages go to .cache/api.
  docs: () => tool('typedoc', []),
};

await runMain(async () => {
  const names = process.argv.slice(2);
  await setUp();
  let failures = 0;
  for (const name of names) {
    if (!CHECKS[name]) throw new StepError(`no such check: ${name}`);
    const start = performance.now();
    try {
      await CHECKS[name]();
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      console.log(`${name.padEnd(6)} ok ${seconds.padStart(6)} s`);
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      failures += 1;
      console.error(error.message);
    }
  }
  return failures === 0 ? 0 : 1;
});
