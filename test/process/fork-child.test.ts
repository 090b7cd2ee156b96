// Goal: our `fork` keeps every promise that Node's documentation makes of the events and properties of
// a forked child, and of `process` in it.
// Method: each promise is a test that runs against both, with the same expectation written out; what
// a child was promised to see is told by the child.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import { codeOf, FORKS, forked, promise, STAY } from './forks.js';

const folder = mkdtempSync(join(tmpdir(), 'ukshm-fork-'));
after(() => rmSync(folder, { recursive: true }));

/** A script in the test's folder. */
function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe('a forked child', { concurrency: 2 }, () => {
  promise('emits spawn, then message, then disconnect, then exit, then close', async (fork) => {
    // It stays until the parent has heard that it is disconnected: two ends that come at once may be
    // heard of in either order, with Node's own, too.
    const child = forked(
      fork,
      `process.stdin.resume();
       process.on('message', () => process.send(1, () => process.disconnect()));`,
      { silent: true },
    );
    child.process.on('disconnect', () => child.process.stdin?.end());
    const events: unknown[] = [];
    for (const name of ['spawn', 'message', 'disconnect', 'exit', 'close']) {
      child.process.on(name, (...args) => events.push([name, ...args.slice(0, 2)]));
    }
    child.process.send('go');
    await child.closed;
    assert.deepEqual(events, [
      ['spawn'],
      ['message', 1, undefined],
      ['disconnect'],
      ['exit', 0, null],
      ['close', 0, null],
    ]);
  });

  promise('tells its exit code, or its signal', async (fork) => {
    const quick = forked(fork, 'process.exit(7)');
    const killed = forked(fork, STAY);
    assert.equal(killed.process.killed, false);
    assert.equal(killed.process.exitCode, null);
    assert.ok((killed.process.pid ?? 0) > 0);
    assert.equal(killed.process.spawnfile, process.execPath);
    await once(killed.process, 'spawn');
    assert.equal(killed.process.kill('SIGKILL'), true);
    assert.equal(killed.process.killed, true);
    assert.deepEqual(await quick.closed, { code: 7, signal: null });
    assert.deepEqual(await killed.closed, { code: null, signal: 'SIGKILL' });
    assert.deepEqual([quick.process.exitCode, killed.process.signalCode], [7, 'SIGKILL']);
    assert.equal(killed.process.kill(), false);
    assert.equal(
      codeOf(() => killed.process.kill('SIGNONE' as never)),
      'ERR_UNKNOWN_SIGNAL',
    );
  });

  promise('is disconnected by the parent', async (fork) => {
    const child = forked(
      fork,
      `process.on('disconnect', () => process.exit(process.connected ? 1 : 5)); process.send('up')`,
    );
    await child.next();
    assert.equal(child.process.connected, true);
    child.process.disconnect();
    assert.equal(child.process.connected, false);
    await once(child.process, 'disconnect');
    assert.deepEqual(await child.exited, { code: 5, signal: null });
  });

  promise('emits an error when it is disconnected twice', async (fork) => {
    const child = forked(fork, STAY);
    child.process.disconnect();
    child.process.disconnect();
    await child.exited;
    assert.deepEqual(
      child.errors.map(({ code }) => code),
      ['ERR_IPC_DISCONNECTED'],
    );
  });

  promise('disconnects itself; both ends then refuse to send', async (fork) => {
    const child = forked(
      fork,
      `process.on('disconnect', () => {
         const sent = process.send('late', (error) => process.exit(error.code === 'ERR_IPC_CHANNEL_CLOSED' && !sent ? 3 : 4));
       });
       process.disconnect();`,
    );
    await once(child.process, 'disconnect');
    assert.equal(child.process.connected, false);
    const codes: unknown[] = [];
    const sent = child.process.send('late', (error) =>
      codes.push((error as { code?: string })?.code),
    );
    assert.equal(sent, false);
    assert.equal(child.process.send('later'), false);
    assert.deepEqual(await child.closed, { code: 3, signal: null });
    assert.deepEqual(codes, ['ERR_IPC_CHANNEL_CLOSED']);
    assert.deepEqual(
      child.errors.map(({ code }) => code),
      ['ERR_IPC_CHANNEL_CLOSED'],
    );
  });

  promise('ends by itself unless it listens for messages or disconnect', async (fork) => {
    const idle = forked(fork, 'process.on("exit", () => {})');
    assert.deepEqual(await idle.closed, { code: 0, signal: null });
    const once = forked(fork, `process.once('message', () => {})`);
    once.process.send('the only one');
    assert.deepEqual(await once.closed, { code: 0, signal: null });
    const listening = forked(fork, `process.on('disconnect', () => {}); process.send('up')`);
    await listening.next();
    assert.equal(listening.process.exitCode, null);
    assert.deepEqual(await listening.end(), { code: 0, signal: null });
  });

  promise('ends or stays as process.channel is told', async (fork) => {
    const unref = forked(fork, `process.on('message', () => {}); process.channel.unref()`);
    assert.deepEqual(await unref.closed, { code: 0, signal: null });
    const ref = forked(fork, `process.channel.ref(); process.send('up')`);
    await ref.next();
    assert.equal(ref.process.exitCode, null);
    assert.deepEqual(await ref.end(), { code: 0, signal: null });
  });

  promise('lets the parent end where it is told so, by channel and child', async (fork) => {
    const url = JSON.stringify(new URL('./forks.js', import.meta.url).href);
    const index = FORKS.findIndex(([, one]) => one === fork);
    const path = script('stays.cjs', `process.on('disconnect', () => process.exit())`);
    const code = `import(${url}).then(({ FORKS }) => {
      const child = FORKS[${index}][1](${JSON.stringify(path)}, { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
      child.on('spawn', () => { child.unref(); child.channel.unref(); });
    })`;
    const { status, signal } = spawnSync(process.execPath, ['-e', code], { timeout: 15_000 });
    assert.deepEqual({ status, signal }, { status: 0, signal: null });
  });

  promise('keeps messages until there is a listener', async (fork) => {
    const child = forked(
      fork,
      `setTimeout(() => process.on('message', (m) => m === 'end' ? setImmediate(() => process.disconnect()) : process.send(m)), 150)`,
    );
    for (const message of [1, { two: 2 }, 'three', 'end']) child.process.send(message);
    assert.deepEqual(
      [await child.next(), await child.next(), await child.next()],
      [1, { two: 2 }, 'three'],
    );
    await child.closed;
  });
});
