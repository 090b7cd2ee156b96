// @ts-check
// `npm test [-- [--on PLATFORM] [substring …]]`: sets up what is missing, then runs the test files
// whose path holds one of the substrings (all without any), each in a process of its own.
// --on x64@24, --on arm64@22: with another release of Node, fetched from npm (lib/other-node.mjs).
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { otherNode } from './lib/other-node.mjs';
import { installPackages } from './lib/packages.mjs';
import { runMain, StepError } from './lib/run.mjs';
import { killAll, runFile } from './lib/run-file.mjs';
import { CACHE, filesBelow } from './lib/stamp.mjs';
import { buildFor } from './prebuild.mjs';
import { setUp, timed } from './setup.mjs';

/** @typedef {import('./lib/run-file.mjs').FileResult} FileResult */

/** A file that reports no event for so long hangs: twenty times the slowest single test. */
const SILENCE_MS = 120_000;
/** Tests start processes of their own: more files at once would only disturb each other. */
const FILES_AT_ONCE = Math.min(4, Math.max(1, availableParallelism()));
/** In CI only what the machine cannot do may be skipped; such reasons start like this. */
const PERMITTED_SKIP = 'not possible here:';
const TIMES = join(CACHE, 'test-times.json');

/** @returns {Promise<number>} */
async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { on: { type: 'string' }, 'skips-to': { type: 'string' } },
  });
  await timed('packages', installPackages);
  await setUp();
  const node = values.on ? await otherNode(values.on) : [process.execPath];
  if (values.on) await buildFor(values.on.split('@')[0]);
  const files = select(positionals);
  const start = performance.now();
  const results = await runAll(node, files);
  return summarize(results, (performance.now() - start) / 1000, values.on, values['skips-to']);
}

/**
 * @param {string[]} substrings
 * @returns {string[]} the slowest of last time first, so that no long one is left to the end
 */
function select(substrings) {
  const files = filesBelow('dist/test', ['.test.js']).filter(
    (file) => substrings.length === 0 || substrings.some((part) => shortName(file).includes(part)),
  );
  if (files.length === 0) throw new StepError(`no test file matches ${substrings.join(' or ')}`);
  const times = readTimes();
  return files.sort((a, b) => (times[b] ?? 0) - (times[a] ?? 0));
}

/** @returns {Record<string, number>} seconds by file */
function readTimes() {
  return existsSync(TIMES) ? JSON.parse(readFileSync(TIMES, 'utf8')) : {};
}

/**
 * @param {string[]} node
 * @param {string[]} files
 * @returns {Promise<FileResult[]>}
 */
async function runAll(node, files) {
  /** @type {FileResult[]} */
  const results = [];
  const queue = [...files];
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const result = await runFile(node, file, SILENCE_MS);
      results.push(result);
      show(result);
    }
  };
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.on(signal, () => {
      killAll();
      process.exit(130);
    });
  }
  await Promise.all(Array.from({ length: FILES_AT_ONCE }, worker));
  const times = readTimes();
  for (const { file, seconds } of results) times[file] = seconds;
  writeFileSync(TIMES, JSON.stringify(times));
  return results;
}

/** @param {string} file */
function shortName(file) {
  return file.replace(/^dist\/test\//, '').replace(/\.test\.js$/, '');
}

/** @param {FileResult} result */
function show(result) {
  const { file, failures, output, skips } = result;
  const skipped = skips.length > 0 ? `, ${skips.length} skipped` : '';
  const name = shortName(file).padEnd(32);
  const verdict = failures.length === 0 ? 'ok  ' : 'FAIL';
  const seconds = `${result.seconds.toFixed(1)} s`.padStart(7);
  console.log(`${verdict} ${name} ${seconds} ${String(result.tests).padStart(4)} tests${skipped}`);
  for (const failure of failures) console.log(indent(`\n${failure}\n`));
  if (failures.length > 0 && output.trim() !== '') console.log(indent(`output:\n${output}`));
}

/** @param {string} text */
function indent(text) {
  return text.replace(/^(?=.)/gm, '     ');
}

/**
 * @param {FileResult[]} results
 * @param {number} seconds
 * @param {string | undefined} on
 * @param {string | undefined} skipsFile - where to add the skipped tests, for .ci/run
 * @returns {number} exit status
 */
function summarize(results, seconds, on, skipsFile) {
  const place = on ? `Node ${on}` : `Node ${process.versions.node}`;
  const skips = results.flatMap(({ file, skips }) =>
    skips.map(({ name, reason }) => ({ line: `${shortName(file)}: ${name}: ${reason}`, reason })),
  );
  const refused = process.env.CI
    ? skips.filter(({ reason }) => !reason.startsWith(PERMITTED_SKIP))
    : [];
  const failed = results.filter(({ failures }) => failures.length > 0);
  if (skips.length > 0) console.log('\nskipped:');
  for (const { line } of skips) console.log(`  ${line}`);
  if (failed.length > 0) console.log('\nfailed:');
  for (const { file, failures } of failed) {
    for (const failure of failures) console.log(`  ${shortName(file)}: ${failure.split('\n')[0]}`);
  }
  if (refused.length > 0) {
    console.log(`\nskipped without permission (in CI a reason starts with "${PERMITTED_SKIP}"):`);
    for (const { line } of refused) console.log(`  ${line}`);
  }
  if (skipsFile) appendFileSync(skipsFile, skips.map(({ line }) => `${place}: ${line}\n`).join(''));
  const tests = results.reduce((sum, result) => sum + result.tests, 0);
  const failures = failed.reduce((sum, result) => sum + result.failures.length, 0);
  console.log(
    `\n${tests} tests in ${results.length} files: ${failures} failed, ${skips.length} skipped, ` +
      `${seconds.toFixed(1)} s, ${place}`,
  );
  return failures === 0 && refused.length === 0 ? 0 : 1;
}

await runMain(main);
