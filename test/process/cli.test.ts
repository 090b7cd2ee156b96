// The command line: help, wrong arguments, and the commands other than the relay.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { offer, Pages } from '../../src/offer/index.js';
import { closeDescriptor } from '../../src/sys/memory.js';
import { send } from '../../src/sys/socket.js';
import { rawAccept, rawListen, welcomeOf } from './raw-peer.js';
import { folderFor, ukshm } from './relay-tools.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const INDEX = new URL('../../src/index.js', import.meta.url).href;
const COMMANDS = ['relay', 'doctor', 'ls', 'offers', 'build'];

describe('ukshm', () => {
  it('shows its commands with --help, and each command its own options', async () => {
    const program = await ukshm(['--help']);
    assert.equal(program.status, 0);
    for (const command of COMMANDS)
      assert.match(program.stdout.toString(), new RegExp(` ${command} `));
    const helps = await Promise.all(COMMANDS.map((command) => ukshm([command, '--help'])));
    for (const { status, stdout, stderr } of helps) {
      assert.equal(status, 0);
      assert.equal(stderr, '');
      assert.match(stdout.toString(), /--json/);
    }
  });

  it('tells its version', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
    assert.equal((await ukshm(['--version'])).stdout.toString(), `${version}\n`);
  });

  for (const args of [
    ['nonsense'],
    ['relay'],
    ['ls', '--nonsense'],
    ['relay', 'a', 'b', '--chunk-bytes', 'x'],
  ]) {
    it(`answers '${args.join(' ')}' with one line and status 2`, async () => {
      const { status, stderr } = await ukshm(args);
      assert.equal(status, 2);
      assert.match(stderr, /^ukshm: [^\n]+\n$/);
    });
  }

  it('shows a stack only with --verbose', async () => {
    const args = ['relay', '/nowhere', '/dev/null'];
    const [short, long] = await Promise.all([ukshm(args), ukshm(['--verbose', ...args])]);
    assert.match(short.stderr, /^ukshm: [^\n]+\(ENOENT\)\n$/);
    assert.match(long.stderr, /\n {4}at /);
    assert.match(long.stderr, /in the reader:/);
  });
});

describe('ukshm doctor', () => {
  it('tells for each feature whether it is there, why, and what would help', async () => {
    const { status, stdout, stderr } = await ukshm(['doctor', '--json']);
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const { features, kernel, node } = JSON.parse(stdout.toString());
    assert.equal(node, process.version);
    assert.ok(kernel.length > 0);
    assert.ok(features.length >= 8);
    for (const { name, available, why, cure } of features) {
      assert.equal(typeof name, 'string');
      assert.equal(typeof available, 'boolean');
      assert.ok(why.length > 0, name);
      if (!available) assert.ok(cure.length > 0, name);
    }
  });

  it('prints the same for people', async () => {
    const { status, stdout } = await ukshm(['doctor']);
    assert.equal(status, 0);
    assert.match(stdout.toString(), /^Linux .*, Node v/);
    assert.match(stdout.toString(), /^yes {3}/m);
    assert.doesNotMatch(stdout.toString(), /undefined/);
  });
});

describe('ukshm ls', () => {
  it('lists a listener with its owner, its peer and the memory between them', async (t) => {
    const name = `ls-test-${process.pid}`;
    const script = `
      const { listen, connect } = await import(${JSON.stringify(INDEX)});
      const listener = await listen('${name}');
      const [a, b] = await Promise.all([listener.accept(), connect('${name}')]);
      a.ref(); console.log('ready');`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => owner.kill('SIGKILL'));
    await new Promise((resolve, reject) => {
      owner.stdout.once('data', resolve);
      owner.once('close', () => reject(new Error('the owner ended')));
    });
    const { status, stdout, stderr } = await ukshm(['ls', '--json']);
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const { listeners } = JSON.parse(stdout.toString());
    const found = listeners.find((listener: { name: string }) => listener.name === name);
    assert.equal(found?.pid, owner.pid);
    assert.equal(found.uid, process.geteuid?.());
    assert.equal(found.kind, 'abstract');
    assert.equal(found.channels.length, 1);
    assert.equal(found.channels[0].peerPid, owner.pid);
    const people = (await ukshm(['ls'])).stdout.toString();
    assert.match(people, new RegExp(`^${name} +${owner.pid} `, 'm'));
  });

  it('is not misled by a listener that answers something else', async (t) => {
    const name = `ls-liar-${process.pid}`;
    const listening = rawListen(name);
    t.after(() => closeDescriptor(listening));
    const lies: unknown[] = [
      null,
      7,
      { pid: 'x', uid: 0, channels: [] },
      { pid: 1, uid: 0, channels: 'none' },
      { pid: 1, uid: 0, channels: [{}] },
      { pid: 1, uid: 0, channels: [null] },
      { pid: 1, uid: 0, channels: [{ peerPid: 1, sharedBytes: -1, bytesInUse: 'all' }] },
    ];
    for (const lie of lies) {
      const answered = rawAccept(listening).then((fd) => {
        const text = Buffer.from(JSON.stringify(lie));
        send(fd, Buffer.concat([welcomeOf(text.length, 0), text]));
        t.after(() => closeDescriptor(fd));
      });
      const { status, stdout } = await ukshm(['ls']);
      await answered;
      assert.equal(status, 0, JSON.stringify(lie));
      assert.match(stdout.toString(), new RegExp(`^${name} +\\? .*answered something else`, 'm'));
    }
  });
});

describe('ukshm offers', () => {
  it('lists what is offered, to whom, and with which rights', async (t) => {
    const pages = Pages.allocate({ sizeBytes: 2 ** 20 });
    t.after(() => pages.close());
    const { address } = offer(process.ppid, pages, { grant: 'rw', drop: 'rwx' }).unref();
    const { status, stdout, stderr } = await ukshm(['offers', '--json']);
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const { offers } = JSON.parse(stdout.toString());
    const own = offers.filter(({ sourcePid }: { sourcePid: number }) => sourcePid === process.pid);
    const sizeBytes = 2 ** 20;
    const parties = { sourcePid: process.pid, receiverPid: process.ppid };
    assert.deepEqual(own, [{ ...parties, address, sizeBytes, grant: 'rw', drop: 'rwx' }]);
    const people = (await ukshm(['offers'])).stdout.toString();
    const line = `^ *${process.pid} +${process.ppid}  0x${address.toString(16)} +1 MiB  rw +rwx$`;
    assert.match(people, new RegExp(line, 'm'));
  });
});

describe('ukshm build', () => {
  /** The package as npm installs it, so that the addon in use is not replaced under the tests. */
  function installed(folder: string): string {
    mkdirSync(join(folder, 'dist'));
    cpSync(join(ROOT, 'dist/src'), join(folder, 'dist/src'), { recursive: true });
    cpSync(join(ROOT, 'native'), join(folder, 'native'), { recursive: true });
    cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    return join(folder, 'dist/src/cli/main.js');
  }

  it('compiles an addon that loads, where there was none', async (t) => {
    const folder = folderFor(t);
    const main = installed(folder);
    const before = await ukshm(['doctor'], { main });
    assert.match(before.stdout.toString(), /ukshm build/);
    const { status, stdout, stderr } = await ukshm(['build', '--json'], { main });
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const { addon } = JSON.parse(stdout.toString());
    assert.ok(addon.startsWith(join(folder, 'prebuilds')));
    const after = await ukshm(['doctor', '--json'], { main });
    assert.ok(JSON.parse(after.stdout.toString()).features.length > 1);
  });

  it('names what is missing: compiler, headers, or what the compiler said', async (t) => {
    const folder = folderFor(t);
    const main = installed(folder);
    const env = { ...process.env, CC: 'no-such-compiler' };
    const noCompiler = await ukshm(['build'], { main, env });
    assert.equal(noCompiler.status, 1);
    assert.match(noCompiler.stderr, /^ukshm: no C compiler \(no-such-compiler\).*\n$/);
    const noHeaders = await ukshm(['build', '--headers', '/nowhere'], { main });
    assert.match(noHeaders.stderr, /^ukshm: \/nowhere has no node_api\.h \(ENOENT\)\n$/);
    writeFileSync(join(folder, 'native/wrong.c'), '#error deliberate\n');
    const wrong = await ukshm(['build'], { main });
    assert.equal(wrong.status, 1);
    assert.match(wrong.stderr, /^ukshm: .*deliberate.*\n$/);
    rmSync(join(folder, 'native/wrong.c'));
  });
});
