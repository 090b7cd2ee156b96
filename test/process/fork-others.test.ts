// Goal: a child that is not ours, cannot follow, dies or lies costs nothing but its own messages:
// all goes Node's own way, nothing hangs, nothing is left. Method: children that do each of these.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import {
  collectUntil,
  NOBODY,
  openDescriptors,
  regionDescriptors,
  regionMaps,
  whyNotAsNobody,
} from '../unit/tools.js';
import { ACTOR_IS_READABLE, stopPid } from './actors.js';
import { ECHO, Forked, forked, ukshmFork, untilShared } from './forks.js';
import { pattern } from './pattern.js';

const folder = mkdtempSync(join(tmpdir(), 'ukshm-fork-'));
after(() => rmSync(folder, { recursive: true }));

function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const bytes = Buffer.from(pattern(500_000, 4));

/** Sends large messages for a while, each way: all go through Node's pipe, and arrive. */
async function goesNodesWay(child: Forked): Promise<void> {
  try {
    for (let i = 0; i < 5; i++) {
      child.process.send({ i, bytes });
      const back: { i: number; bytes: Buffer } = await child.next();
      assert.equal(back.i, i);
      assert.ok(bytes.equals(back.bytes));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.deepEqual(regionMaps('fork-'), []);
  } finally {
    await child.end();
  }
}

/** Waits until nothing of any channel is left in this process. */
async function nothingIsLeft(): Promise<void> {
  await until(() => regionDescriptors() === 0 && regionMaps('fork-').length === 0);
}

/** Waits until the channels of this process are as they shall be. */
async function until(condition: () => boolean): Promise<void> {
  const start = performance.now();
  while (!condition() && performance.now() - start < 5000) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const rest = [regionDescriptors(), ...regionMaps('fork-').map(({ path }) => path)];
  assert.ok(condition(), rest.join('\n'));
}

describe('a forked child that is not ours', () => {
  it('may be no Node: it gets and sends lines of JSON, however long', async () => {
    const shell = script(
      'lines.sh',
      `read line <&3; printf '{"length":%s}\\n' \${#line} >&3; printf '%s\\n' "$line" >&3`,
    );
    const child = new Forked(ukshmFork(shell, { execPath: '/bin/sh', execArgv: [] }));
    child.process.send(bytes);
    const { length }: { length: number } = await child.next();
    assert.equal(length, JSON.stringify(bytes).length);
    assert.deepEqual(await child.next(), bytes.toJSON());
    assert.deepEqual(await child.closed, { code: 0, signal: null });
  });

  it('may be another Node', async () => {
    const execPath = join(folder, 'another-node');
    symlinkSync(process.execPath, execPath);
    await goesNodesWay(forked(ukshmFork, ECHO, { execPath, serialization: 'advanced' }));
  });

  it('may be one that loads no addons', async () => {
    const execArgv = ['--no-addons'];
    await goesNodesWay(forked(ukshmFork, ECHO, { execArgv, serialization: 'advanced' }));
  });

  it('may be one in which the addon does not load', async () => {
    const broken = script('broken.cjs', `process.dlopen = () => { throw new Error('no addon') };`);
    const execArgv = ['--require', broken];
    await goesNodesWay(forked(ukshmFork, ECHO, { execArgv, serialization: 'advanced' }));
  });

  it('may be a script that hears of nothing', async () => {
    const deaf = script('deaf.cjs', 'delete process.emit;');
    const execArgv = ['--require', deaf];
    await goesNodesWay(forked(ukshmFork, ECHO, { execArgv, serialization: 'advanced' }));
  });

  it('may belong to another user', async (t) => {
    const reason =
      whyNotAsNobody() ?? (ACTOR_IS_READABLE ? undefined : 'not possible here: folder');
    if (reason !== undefined) {
      t.skip(reason);
      return;
    }
    const options = { uid: NOBODY, gid: NOBODY, cwd: '/', serialization: 'advanced' } as const;
    await goesNodesWay(forked(ukshmFork, ECHO, options));
  });

  it('leaves nothing behind', nothingIsLeft);
});

describe('the memory of forked children', () => {
  for (const [how, end] of [
    ['is disconnected', (child: Forked) => child.process.disconnect()],
    ['ends', (child: Forked) => child.process.send({ exit: true })],
    ['is killed', (child: Forked) => child.process.kill('SIGKILL')],
    [
      'is killed while a part is under way',
      (child: Forked) => {
        stopPid(child.process.pid ?? 0);
        for (let i = 0; i < 5; i++) child.process.send({ bytes: Buffer.alloc(8_000_000) });
        child.process.kill('SIGKILL');
      },
    ],
  ] as const) {
    it(`is free again when one ${how}`, async () => {
      const code = `${ECHO} process.on('message', (m) => m.exit && process.exit(0));`;
      const before = openDescriptors();
      for (let i = 0; i < 3; i++) {
        const child = forked(ukshmFork, code, { serialization: 'advanced' });
        await untilShared(child);
        // A channel each way; one that was replaced goes soon.
        await until(() => regionMaps('fork-').length === 4);
        end(child);
        await child.exited;
      }
      await nothingIsLeft();
      await collectUntil(() => openDescriptors().size <= before.size + 1);
      // One stays: the poller's.
      assert.ok(openDescriptors().size <= before.size + 1, [...openDescriptors()].join('\n'));
    });
  }

  it('keeps neither side alive', async () => {
    const code = `process.once('message', (m) => process.send(m));`;
    const url = new URL('./forks.js', import.meta.url).href;
    const parent = `import { ukshmFork, forked, untilShared, ECHO } from ${JSON.stringify(url)};
      const child = forked(ukshmFork, ECHO, { serialization: 'advanced', stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
      await untilShared(child);
      child.process.unref(); child.process.channel.unref(); process.removeAllListeners('exit');`;
    const one = new Forked(ukshmFork(script('parent.mjs', parent)));
    assert.deepEqual(await one.exited, { code: 0, signal: null });
    const short = forked(ukshmFork, code, { serialization: 'advanced' });
    short.process.send({ bytes });
    await short.next();
    assert.deepEqual(await short.closed, { code: 0, signal: null });
    await nothingIsLeft();
  });
});
