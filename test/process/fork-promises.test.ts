// Goal: our `fork` keeps every promise that Node's documentation makes of `fork`, of the child's
// events and properties, of `send` and of `process` in the child.
// Method: each promise is a test that runs against both, with the same expectation written out; what
// a child was promised to see is told by the child. Large messages have their own file, and so have
// handles (fork-large.test.ts, fork-handles.test.ts).
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { FORKS, type Fork, Forked, forked } from './forks.js';

const folder = mkdtempSync(join(tmpdir(), 'ukshm-fork-'));
after(() => rmSync(folder, { recursive: true }));

/** A script in the test's folder. */
function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** One test for each of the two. */
function promise(what: string, run: (fork: Fork) => Promise<void>): void {
  for (const [name, fork] of FORKS) it(`${what} (${name})`, () => run(fork));
}

/** What was thrown, by its code or its name. */
function codeOf(action: () => unknown): string {
  try {
    action();
    return 'nothing';
  } catch (error) {
    const { code, name } = error as NodeJS.ErrnoException;
    return typeof code === 'string' ? code : name;
  }
}

const STAY = `process.on('message', (message) => process.send(message));`;

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

describe('a forked child', { concurrency: 2 }, () => {
  promise('emits spawn, message, disconnect, exit and close, in this order', async (fork) => {
    const child = forked(
      fork,
      `process.on('message', () => process.send(1, () => process.disconnect()))`,
    );
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

describe('send', { concurrency: 2 }, () => {
  promise('keeps the order of messages of all sizes, both ways', async (fork) => {
    for (const serialization of ['json', 'advanced'] as const) {
      const child = forked(fork, STAY, { serialization });
      const sizes = [0, 10, 100_000, 5, 300_000, 1, 70_000, 2];
      for (const [i, size] of sizes.entries()) child.process.send({ i, text: 'x'.repeat(size) });
      for (const [i, size] of sizes.entries()) {
        const message: { i: number; text: string } = await child.next();
        assert.deepEqual([message.i, message.text.length], [i, size]);
      }
      await child.end();
    }
  });

  promise('calls back with null, behind it and in order', async (fork) => {
    const child = forked(fork, STAY);
    const calls: unknown[] = [];
    const returned = [
      child.process.send('a', (error) => calls.push(['a', error])),
      child.process.send('b', undefined, (error) => calls.push(['b', error])),
      child.process.send('c', undefined, {}, (error) => calls.push(['c', error])),
    ];
    assert.deepEqual([returned, calls], [[true, true, true], []]);
    for (const letter of ['a', 'b', 'c']) assert.equal(await child.next(), letter);
    assert.deepEqual(calls, [
      ['a', null],
      ['b', null],
      ['c', null],
    ]);
    await child.end();
  });

  promise('returns false when much is waiting to be sent, and sends it', async (fork) => {
    const child = forked(fork, `process.on('message', (m) => m.end && process.send('all'))`);
    const text = 'x'.repeat(100_000);
    let count = 0;
    while (child.process.send({ text })) count++;
    assert.ok(count < 100, `after ${count}`);
    await child.send({ end: true });
    assert.equal(await child.next(), 'all');
    await child.end();
  });

  promise('throws for what cannot be serialised, and sends nothing of it', async (fork) => {
    const circular: { self?: unknown } = {};
    circular.self = circular;
    const json = forked(fork, STAY);
    const send = (child: Forked, ...args: unknown[]): string =>
      codeOf(() => Reflect.apply(child.process.send as never, child.process, args));
    assert.deepEqual(
      [undefined, () => {}, Symbol('s'), 5n, circular, { a: 5n }].map((message) =>
        send(json, message),
      ),
      [
        'ERR_MISSING_ARGS',
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'TypeError',
        'TypeError',
      ],
    );
    assert.equal(send(json, 'x', {}), 'ERR_INVALID_HANDLE_TYPE');
    assert.equal(send(json, 'x', undefined, 5), 'ERR_INVALID_ARG_TYPE');
    const advanced = forked(fork, STAY, { serialization: 'advanced' });
    const thrown = [{ f: () => {} }, { s: Symbol('s') }, new WeakMap(), Promise.resolve()];
    assert.deepEqual(
      thrown.map((message) => send(advanced, message)),
      ['Error', 'Error', 'Error', 'Error'],
    );
    for (const child of [json, advanced]) {
      child.process.send('fine');
      assert.equal(await child.next(), 'fine');
      await child.end();
    }
  });

  promise('throws what a getter or toJSON throws, and calls each once', async (fork) => {
    for (const serialization of ['json', 'advanced'] as const) {
      const child = forked(fork, STAY, { serialization });
      let reads = 0;
      const counting = {
        get value() {
          return ++reads;
        },
      };
      child.process.send(counting);
      assert.deepEqual(await child.next(), { value: 1 });
      const failing = {
        get value() {
          throw new RangeError('mine');
        },
      };
      assert.equal(
        codeOf(() => child.process.send(failing)),
        'RangeError',
      );
      await child.end();
    }
  });

  promise('keeps from the program what Node keeps for itself', async (fork) => {
    const child = forked(
      fork,
      `process.on('message', (m) => process.send(m));
      process.on('internalMessage', (m) => process.send({ internal: m.cmd })); process.send('up')`,
    );
    await child.next();
    child.process.send({ cmd: 'NODE_foo' });
    child.process.send({ cmd: 'NODE_' });
    assert.deepEqual(
      [await child.next(), await child.next()],
      [{ internal: 'NODE_foo' }, { cmd: 'NODE_' }],
    );
    await child.end();
  });

  promise('sends primitives, and in mode json what JSON makes of the rest', async (fork) => {
    const child = forked(fork, STAY);
    const bytes = Buffer.from([1, 2]);
    const sent = [
      0,
      -1.5,
      '',
      'ä\n\u2028😀',
      true,
      null,
      [],
      { a: undefined, b: [undefined, NaN] },
      new Date(0),
      new Map([[1, 2]]),
      bytes,
      { bytes: new Uint8Array([3, 4]), buffer: new ArrayBuffer(2) },
    ];
    for (const message of sent) child.process.send(message as object);
    for (const message of sent) {
      assert.deepEqual(await child.next(), JSON.parse(JSON.stringify(message)));
    }
    await child.end();
  });

  promise('sends, in mode advanced, what structured clone knows', async (fork) => {
    const child = forked(fork, STAY, { serialization: 'advanced' });
    const shared = { x: 1 };
    const circular: Record<string, unknown> = { shared, again: shared };
    circular.self = circular;
    const sent = [
      5n,
      undefined,
      new Map<unknown, unknown>([[shared, new Set([1])]]),
      new Date(5),
      /a+/gi,
      new RangeError('range'),
      new Float64Array([1.5, -0]),
      new BigInt64Array([5n]),
      new Uint8ClampedArray([300]),
      new Int16Array([-2]),
      Buffer.from('buffer'),
      new Uint8Array(3),
      new DataView(new ArrayBuffer(5), 1, 3),
      new ArrayBuffer(4),
      Object.assign([], { 0: 1, 2: 3 }),
      circular,
    ];
    for (const value of sent) child.process.send({ value });
    for (const value of sent) {
      const message: { value: never } = await child.next();
      if (value instanceof Error) {
        assert.deepEqual(
          [(message.value as unknown) instanceof RangeError, (message.value as Error).message],
          [true, 'range'],
        );
      } else assert.deepEqual(message.value, value);
    }
    await child.end();
  });

  promise('gives messages to several listeners, and to once', async (fork) => {
    const child = forked(fork, STAY);
    const seen: unknown[] = [];
    child.process.on('message', (message) => seen.push(message));
    const first = once(child.process, 'message');
    child.process.send('a');
    child.process.send('b');
    assert.deepEqual([await child.next(), await child.next()], ['a', 'b']);
    assert.deepEqual([seen, (await first)[0]], [['a', 'b'], 'a']);
    await child.end();
  });

  promise('reports a child that is dead to the callback, or as an error event', async (fork) => {
    const child = forked(fork, STAY);
    await once(child.process, 'spawn');
    child.process.kill('SIGKILL');
    await child.closed;
    await assert.rejects(child.send('x'), { code: 'ERR_IPC_CHANNEL_CLOSED' });
    assert.equal(child.process.send('y'), false);
    await new Promise(setImmediate);
    assert.deepEqual(
      child.errors.map(({ code }) => code),
      ['ERR_IPC_CHANNEL_CLOSED'],
    );
  });
});
