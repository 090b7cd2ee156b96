// Goal: ends that have nothing to do cost nothing, and channels need nothing that a container may
// forbid.
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { fixture, startActor, uniqueName } from './actors.js';

const OPTIONS = { timeout: 30_000 };
const IDLE_MS = 700;
/** V8 tidies up at a time of its own, which takes it a few hundredths of a second. */
const WINDOW_COUNT = 3;
/** 0.05 % of a core is promised; a test guards at twenty times that. */
const IDLE_SHARE = 20 * 0.0005;
const run = promisify(execFile);

const withoutStrace: string | false =
  spawnSync('strace', ['-V']).status === 0
    ? false
    : 'not possible here: no strace; apt-get install strace';

describe('idle channels', () => {
  it('use no processor time, after work and with somebody waiting', OPTIONS, async (t) => {
    const [one, other] = await Promise.all([startActor(t), startActor(t)]);
    for (const as of ['a', 'b']) {
      const name = uniqueName('idle');
      await one.call('listen', name);
      const accepted = one.call('accept', name, as);
      await other.call('connect', name, as);
      await accepted;
      await other.call('echo', as);
      await one.call('send', as, 1000, 1);
      assert.ok((await one.call('receive', as, 1))[0]?.right);
      void one.call('receive', as, 1).catch(() => {});
    }
    const actors = [one, other];
    // Whatever the work before has left to do, and the garbage collector.
    await one.call('sleep', 300);
    const least = actors.map(() => 1);
    for (let window = 0; window < WINDOW_COUNT; window++) {
      const before = await Promise.all(actors.map((actor) => actor.call('cpuMicros')));
      await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
      const after = await Promise.all(actors.map((actor) => actor.call('cpuMicros')));
      for (const [index, micros] of after.entries()) {
        const share = (micros - (before[index] ?? 0)) / (IDLE_MS * 1000);
        least[index] = Math.min(least[index] ?? 1, share);
      }
    }
    for (const share of least) {
      t.diagnostic(`${(share * 100).toFixed(3)} % of a core`);
      assert.ok(share < IDLE_SHARE, `${share * 100} % of a core`);
    }
  });
});

describe('a channel', () => {
  it('works where io_uring is forbidden', { ...OPTIONS, skip: withoutStrace }, async () => {
    // As a container's seccomp filter does it: io_uring_setup(2) fails with EPERM.
    const call = 'io_uring_setup';
    const forbid = ['-e', `trace=${call}`, '-e', `inject=${call}:error=EPERM`];
    const args = ['-f', '-o', '/dev/null', ...forbid, process.execPath, fixture('one-echo')];
    const { stdout } = await run('strace', args);
    assert.equal(stdout, 'io_uring: forbidden\nechoed\n');
  });
});
