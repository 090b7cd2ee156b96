// The unit tests of what the scheduler runs, on the turned build: it does what the product does.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { buildVariant } from '../transform/build.js';
import { sync } from './explore/runtime.js';
import { World } from './explore/world.js';
import { takeTests } from './stubs/node-test.js';

/** All that need no system call. Not ring-sleep: it puts a function of its own in Atomics' place. */
const FILES = [
  'ring',
  'ring-model',
  'ring-hostile',
  'gather',
  'wire',
  'substitute',
  'releases',
  'latest-ring',
  'latest-table',
  'leases',
  'waiters',
  'spinner',
  'chunk-allocator',
];

/** These start a process of their own, or ask Node who listens to its signals. */
const OTHERS =
  /^a value that is set all the time|all fail when there is nothing|leave no listener|is the promise, or the reason/;

const paths = FILES.map((file) => `test/unit/${file}.test.ts`);
const build = buildVariant({ roots: paths, syncCallbacks: true });
for (const [i, path] of paths.entries()) {
  await build.load(path);
  const tests = takeTests().filter(({ name }) => !OTHERS.test(name));
  describe(`on the turned build: ${FILES[i]}`, () => {
    it('has tests', () => assert.ok(tests.length > 0));
    for (const { name, body } of tests) {
      it(name, () => {
        new World();
        return sync(body)() as Promise<void>;
      });
    }
  });
}
