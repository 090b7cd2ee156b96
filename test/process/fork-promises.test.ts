// Goal: our `fork` keeps every promise that Node's documentation makes of `fork` itself and its options.
// Method: each promise is a test that runs against both, with the same expectation written out; what
// a child was promised to see is told by the child.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe } from 'node:test';
import { pathToFileURL } from 'node:url';
import { codeOf, FORKS, type Fork, Forked, forked, promise, STAY } from './forks.js';

const folder = mkdtempSync(join(tmpdir(), 'ukshm-fork-'));
after(() => rmSync(folder, { recursive: true }));

/** A script in the test's folder. */
function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe('fork', { concurrency: 2 }, () => {
  promise('runs a module, by path or URL, with arguments', async (fork) => {
    const path = script('argv.cjs', 'process.send(process.argv.slice(1))');
    for (const module of [path, pathToFileURL(path)]) {
      const child = new Forked(fork(module, ['a', 'b c']));
      assert.deepEqual(await child.next(), [path, 'a', 'b c']);
      assert.deepEqual(await child.closed, { code: 0, signal: null });
    }
  });

  promise('takes options in place of arguments, and null for both', async (fork) => {
    const path = script('cwd.cjs', 'process.send([process.argv.length, process.cwd()])');
    const child = new Forked(fork(path, { cwd: '/' }));
    assert.deepEqual(await child.next(), [2, '/']);
    const plain = fork as (...args: unknown[]) => ReturnType<Fork>;
    const bare = new Forked(plain(path, null, null));
    assert.deepEqual(await bare.next(), [2, process.cwd()]);
    await Promise.all([child.closed, bare.closed]);
  });

  promise('refuses what Node refuses', async (fork) => {
    const plain = fork as unknown as (...args: unknown[]) => unknown;
    assert.deepEqual(
      [
        codeOf(() => plain(0)),
        codeOf(() => plain('a.js', 'no array')),
        codeOf(() => plain('a.js', [], 'no object')),
        codeOf(() => plain('a.js', [], [])),
        codeOf(() => plain('a.js', [], { stdio: ['pipe', 'pipe', 'pipe'] })),
        codeOf(() => plain('a.js', [], { stdio: 'none' })),
        codeOf(() => plain('a.js', [], { serialization: 'none' })),
        codeOf(() => plain('a.js', [], { execArgv: ['\0'] })),
        codeOf(() => plain('a.js', [], { timeout: -1 })),
      ],
      [
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'ERR_CHILD_PROCESS_IPC_REQUIRED',
        'ERR_INVALID_ARG_VALUE',
        'ERR_INVALID_ARG_VALUE',
        'ERR_INVALID_ARG_VALUE',
        'ERR_OUT_OF_RANGE',
      ],
    );
  });

  promise('gives env, execArgv and arguments to the child, and nothing else', async (fork) => {
    const tell = `process.send({
      env: process.env, execArgv: process.execArgv, argv: process.argv.slice(3),
      cache: Object.keys(require.cache), main: require.main === module,
      command: require('fs').readFileSync('/proc/self/cmdline', 'latin1').split('\\0').slice(1, -1),
      grandchild: require('child_process').spawnSync(process.execPath,
        ['-p', 'String(process.env.NODE_OPTIONS)']).stdout.toString().trim(),
    })`;
    const path = script('environment.cjs', tell);
    const execArgv = ['--no-warnings'];
    for (const NODE_OPTIONS of [undefined, '', '--no-deprecation', '--conditions="a b"']) {
      const env: NodeJS.ProcessEnv = { HERE: 'yes', PATH: '/bin' };
      if (NODE_OPTIONS !== undefined) env.NODE_OPTIONS = NODE_OPTIONS;
      const child = new Forked(fork(path, ['x'], { env, execArgv }));
      assert.deepEqual(await child.next(), {
        env,
        execArgv,
        argv: [],
        cache: [path],
        main: true,
        command: [...execArgv, path, 'x'],
        grandchild: String(NODE_OPTIONS),
      });
      assert.deepEqual(child.process.spawnargs, [process.execPath, ...execArgv, path, 'x']);
      await child.closed;
    }
  });

  promise('inherits env, its inherited values too, and execArgv without -e', async (fork) => {
    const path = script('inherits.cjs', 'process.send([process.env.A, process.env.B])');
    const env = Object.create({ A: '1' }, { B: { value: '2', enumerable: true } });
    const child = new Forked(fork(path, { env }));
    assert.deepEqual(await child.next(), ['1', '2']);
    await child.closed;
    const url = JSON.stringify(new URL('./forks.js', import.meta.url).href);
    const index = FORKS.findIndex(([, one]) => one === fork);
    const code = `import(${url}).then(({ FORKS }) => {
      FORKS[${index}][1](${JSON.stringify(path)}).on('message', (m) => console.log('got', m)) })`;
    const { stdout, status } = spawnSync(process.execPath, ['--no-warnings', '-e', code], {
      encoding: 'utf8',
      env: { A: 'x', B: 'y' },
    });
    assert.deepEqual({ stdout, status }, { stdout: "got [ 'x', 'y' ]\n", status: 0 });
  });

  promise('loads the module as Node does: also without an extension it knows', async (fork) => {
    for (const name of ['main', 'main.worker', 'main.mjs']) {
      const text =
        name === 'main.mjs' ? 'process.send(import.meta.url)' : 'process.send(__filename)';
      const path = script(name, text);
      const child = new Forked(fork(path));
      const told = name === 'main.mjs' ? pathToFileURL(path).href : path;
      assert.equal(await child.next(), told);
      await child.closed;
    }
  });

  promise('reports a module that is not there by its exit status', async (fork) => {
    const child = new Forked(fork(join(folder, 'nowhere.js'), { silent: true }));
    let stderr = '';
    child.process.stderr?.on('data', (text) => {
      stderr += text;
    });
    assert.deepEqual(await child.closed, { code: 1, signal: null });
    assert.match(stderr, /MODULE_NOT_FOUND/);
    assert.doesNotMatch(stderr, /preload/);
  });

  promise('shares stdio, or pipes it if silent, or does as stdio says', async (fork) => {
    const path = script('stdio.cjs', 'process.stdout.write("out"); process.stderr.write("err")');
    const inherited = new Forked(fork(path, { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] }));
    const silent = new Forked(fork(path, { silent: true }));
    const extra = new Forked(fork(path, { stdio: ['pipe', 'pipe', 'ignore', 'pipe', 'ipc'] }));
    assert.deepEqual(
      [inherited, silent, extra].map(({ process: { stdio } }) => stdio.map((one) => one !== null)),
      [
        [false, false, false, false],
        [true, true, true, false],
        [true, true, false, true, false],
      ],
    );
    let text = '';
    for (const stream of [silent.process.stdout, silent.process.stderr, extra.process.stdout]) {
      stream?.on('data', (chunk) => {
        text += chunk;
      });
    }
    await Promise.all([inherited.closed, silent.closed, extra.closed]);
    assert.equal([...text].sort().join(''), [...'outerrout'].sort().join(''));
  });

  promise('ends the child by signal, and emits an AbortError', async (fork) => {
    const controller = new AbortController();
    const child = forked(fork, STAY, { signal: controller.signal, killSignal: 'SIGINT' });
    await once(child.process, 'spawn');
    controller.abort(new Error('enough'));
    assert.deepEqual(await child.closed, { code: null, signal: 'SIGINT' });
    assert.equal(child.errors[0]?.name, 'AbortError');
    assert.equal((child.errors[0]?.cause as Error | undefined)?.message, 'enough');
    const aborted = forked(fork, STAY, { signal: AbortSignal.abort() });
    assert.deepEqual(await aborted.closed, { code: null, signal: 'SIGTERM' });
  });

  promise('ends the child after its timeout, by killSignal', async (fork) => {
    const child = forked(fork, STAY, { timeout: 300, killSignal: 'SIGKILL' });
    assert.deepEqual(await child.closed, { code: null, signal: 'SIGKILL' });
  });

  promise('starts a detached child as the leader of a group of its own', async (fork) => {
    const path = script(
      'group.cjs',
      `process.send(require('fs').readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ')[2])`,
    );
    const child = new Forked(fork(path, { detached: true }));
    assert.equal(Number(await child.next()), child.process.pid);
    await child.closed;
  });

  promise('reports what cannot be spawned as an error', async (fork) => {
    const child = new Forked(fork('a.js', { cwd: join(folder, 'nowhere') }));
    const [error] = await once(child.process, 'error');
    assert.equal(error.code, 'ENOENT');
    assert.equal(child.process.pid, undefined);
    child.process.disconnect();
  });

  promise('speaks with any program through NODE_CHANNEL_FD', async (fork) => {
    const shell = script('speaker.sh', 'read line <&3; printf \'{"heard":%s}\\n\' "$line" >&3');
    const child = new Forked(fork(shell, { execPath: '/bin/sh', execArgv: [] }));
    child.process.send({ a: [1, 'x', null] });
    assert.deepEqual(await child.next(), { heard: { a: [1, 'x', null] } });
    assert.deepEqual(await child.closed, { code: 0, signal: null });
  });
});
