// Goal: a sender that changes the bytes of its messages while they are read can make them say
// anything, and nothing else: every documented way of reading them is right or an error, and the
// reader lives. Decoding them in place would kill it within seconds.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { describe, it } from 'node:test';
import { ABSTRACT_PREFIX } from '../../src/channel/meeting/address.js';
import { startActor, uniqueName } from './actors.js';
import { cannotCompile, compileHostile } from './hostile-program.js';

const SECONDS = 3;

describe('bytes that change while they are read', { skip: cannotCompile }, () => {
  for (const way of ['messages', 'drain'] as const) {
    it(`harm nobody who reads ${way}`, { timeout: 30_000 }, async (t) => {
      const program = compileHostile(t);
      const name = uniqueName('flip');
      const victim = await startActor(t);
      await victim.call('listen', name, { arenaBytes: 65536 });
      const accepted = victim.call('accept', name, 'flipper');
      const address = `${ABSTRACT_PREFIX}${process.geteuid?.()}/${name}`;
      const flipper = spawn(program, ['flip', address, String(SECONDS)]);
      t.after(() => flipper.kill('SIGKILL'));
      flipper.stderr.pipe(process.stderr);
      await accepted;
      const seen = await victim.call('readEveryWay', 'flipper', way);
      t.diagnostic(JSON.stringify(seen));
      assert.equal(seen.code, 'ERR_UKSHM_PEER_GONE', seen.message);
      assert.ok(seen.messages > 1000, `only ${seen.messages} messages`);
      assert.ok(seen.changed > 10, 'the bytes did change while they were read');
      assert.ok(seen.parsed > 0 && seen.refused > 0);
      const { stderr } = await Promise.race([victim.exited, { stderr: '' }]);
      assert.equal(stderr, '');
    });
  }
});
