// The relay as a user runs it: whole files, pipes, options, and what it prints.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  createWriteStream,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { folderFor, MAIN, makeFifo, noise, sha256, ukshm } from './relay-tools.js';

const MB = 1_000_000;

describe('relay', () => {
  for (const lengthBytes of [0, 1, 65_536, 7 * MB + 13]) {
    it(`brings ${lengthBytes} bytes through unchanged and reports their digest`, async (t) => {
      const folder = folderFor(t);
      const [input, output] = [join(folder, 'input'), join(folder, 'output')];
      const bytes = noise(lengthBytes);
      writeFileSync(input, bytes);
      const { status, stdout, stderr } = await ukshm([
        'relay',
        input,
        output,
        '--json',
        '--verify',
      ]);
      assert.equal(stderr, '');
      assert.equal(status, 0);
      const report = JSON.parse(stdout.toString());
      assert.equal(report.sha256, sha256(bytes));
      assert.equal(report.bytes, lengthBytes);
      assert.equal(report.verified, true);
      assert.equal(report.copiedUserBytes, 0);
      assert.ok(report.copiedKernelBytes <= 2 * lengthBytes);
      assert.deepEqual(Object.keys(report.pids), ['reader', 'examiner', 'writer']);
      assert.ok(report.seconds >= 0 && report.cpuSeconds >= 0);
      assert.ok(bytes.equals(readFileSync(output)));
      assert.deepEqual(readdirSync(folder).sort(), ['input', 'output']);
    });
  }

  it('takes messages that are small, odd, and more than may be in flight', async (t) => {
    const folder = folderFor(t);
    const [input, output] = [join(folder, 'input'), join(folder, 'output')];
    const bytes = noise(2 * MB + 1);
    writeFileSync(input, bytes);
    const sizes = ['--chunk-bytes', '1001', '--in-flight', '5K', '--json'];
    const { status, stdout, stderr } = await ukshm(['relay', input, output, ...sizes]);
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const report = JSON.parse(stdout.toString());
    assert.equal(report.messages, Math.ceil(bytes.length / 1001));
    assert.equal(report.sha256, sha256(bytes));
    assert.ok(bytes.equals(readFileSync(output)));
  });

  it('writes past the page cache, what is ragged through it', async (t) => {
    const folder = folderFor(t);
    const [input, output] = [join(folder, 'input'), join(folder, 'output')];
    const bytes = noise(9 * MB + 5);
    writeFileSync(input, bytes);
    for (const args of [[], ['--chunk-bytes', '300001'], ['--chunk-bytes', '256K']]) {
      const run = ['relay', input, output, '--direct', '--json', ...args];
      const { status, stdout, stderr } = await ukshm(run);
      assert.equal(stderr, '');
      assert.equal(status, 0);
      assert.ok(bytes.equals(readFileSync(output)), args.join(' '));
      const { copiedKernelBytes } = JSON.parse(stdout.toString());
      assert.ok(copiedKernelBytes >= bytes.length && copiedKernelBytes <= 2 * bytes.length);
    }
  });

  it('reads a FIFO that is filled slowly', async (t) => {
    const folder = folderFor(t);
    const [input, output] = [join(folder, 'fifo'), join(folder, 'output')];
    makeFifo(input);
    const bytes = noise(3 * MB);
    const ended = ukshm(['relay', input, output]);
    const source = createWriteStream(input);
    for (let offset = 0; offset < bytes.length; offset += MB) {
      await new Promise((resolve) => source.write(bytes.subarray(offset, offset + MB), resolve));
    }
    source.end();
    const { status, stdout } = await ended;
    assert.equal(status, 0);
    assert.match(stdout.toString(), new RegExp(`^3\\.0 MB in .*\\nsha256 ${sha256(bytes)}\\n$`));
    assert.ok(bytes.equals(readFileSync(output)));
  });

  it('goes from standard input to standard output, with its summary on standard error', async () => {
    const bytes = noise(2 * MB + 7);
    const { status, stdout, stderr } = await ukshm(['relay', '-', '-'], { input: bytes });
    assert.equal(status, 0);
    assert.ok(bytes.equals(stdout));
    assert.match(stderr, new RegExp(`sha256 ${sha256(bytes)}`));
  });

  it('stands in the middle of a pipeline of the shell', async () => {
    const bytes = noise(MB);
    const script = 'cat | "$0" "$1" relay - - 2>/dev/null | cat';
    const shell = spawn('sh', ['-c', script, process.execPath, MAIN]);
    const pieces: Buffer[] = [];
    shell.stdout.on('data', (piece: Buffer) => pieces.push(piece));
    shell.stdin.end(bytes);
    await new Promise((resolve) => shell.once('close', resolve));
    assert.ok(bytes.equals(Buffer.concat(pieces)));
  });

  it('replaces a file, keeps its mode, and follows a symbolic link to it', async (t) => {
    const folder = folderFor(t);
    const [input, output, link] = ['input', 'output', 'link'].map((name) => join(folder, name));
    writeFileSync(input, 'new');
    writeFileSync(output, 'old and longer');
    chmodSync(output, 0o640);
    symlinkSync('output', link);
    const { status } = await ukshm(['relay', input, link]);
    assert.equal(status, 0);
    assert.equal(readFileSync(output, 'utf8'), 'new');
    assert.equal(statSync(output).mode & 0o777, 0o640);
    assert.ok(lstatSync(link).isSymbolicLink());
  });

  it('writes to what is no regular file', async () => {
    const { status, stdout } = await ukshm(['relay', process.execPath, '/dev/null', '--no-hash']);
    assert.equal(status, 0);
    assert.doesNotMatch(stdout.toString(), /sha256/);
  });
});

describe('the progress bar', () => {
  const noTerminal = spawnSync('script', ['--version']).status !== 0;
  it('is drawn on a terminal and wiped at the end', {
    skip: noTerminal && 'needs script(1): apt-get install bsdutils',
  }, async (t) => {
    const folder = folderFor(t);
    writeFileSync(join(folder, 'input'), noise(MB));
    const slow = 'export default () => new Promise((resolve) => setTimeout(resolve, 30));';
    writeFileSync(join(folder, 'slow.mjs'), slow);
    const relay = `relay input output --examine slow.mjs --chunk-bytes 64K`;
    const command = `"${process.execPath}" "${MAIN}" ${relay}`;
    const terminal = spawn('script', ['-qec', command, '/dev/null'], { cwd: folder });
    let text = '';
    terminal.stdout.on('data', (piece: Buffer) => {
      text += piece;
    });
    const status = await new Promise((resolve) => terminal.once('close', resolve));
    assert.equal(status, 0);
    assert.match(text, /█+░+ +\d+ % {2}\d+ kB of 1\.0 MB/);
    assert.ok(text.includes('\r\x1b[2K1.0 MB in '), 'the summary begins at the left');
  });
});

describe('relay --examine', () => {
  const longs = 300_000;

  it('shows each message in place, in order, and reports the result', async (t) => {
    const folder = folderFor(t);
    const [input, output] = [join(folder, 'input'), join(folder, 'output')];
    const bytes = noise(longs);
    writeFileSync(input, bytes);
    writeFileSync(
      join(folder, 'sum.mjs'),
      `let sum = 0; let next = 0;
      export default async function ({ bytes, index, offset, lengthBytes }) {
        if (index !== next++ || offset !== index * 65536) throw new Error('out of order');
        await null;
        for (let at = 0; at < lengthBytes; at++) sum += bytes[at];
      }
      export const result = () => ({ sum, messages: next });`,
    );
    const args = ['relay', input, output, '--examine', 'sum.mjs', '--chunk-bytes', '64K', '--json'];
    const { status, stdout, stderr } = await ukshm(args, { cwd: folder });
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const sum = bytes.reduce((total, byte) => total + byte, 0);
    assert.deepEqual(JSON.parse(stdout.toString()).examined, { sum, messages: 5 });
  });

  const wrong: readonly [string, string, RegExp][] = [
    ['that throws', `export default () => { throw new Error('seen enough'); }`, /seen enough/],
    ['without a function', `export const examine = 1;`, /cannot load .*default export/],
    ['that does not parse', `export default (`, /cannot load/],
    [
      'that writes into a message',
      `export default ({ bytes }) => { bytes[0] = 1; }`,
      /the examiner \(process \d+\) was killed by SIGSEGV .*copy\(\)/,
    ],
  ];
  for (const [what, source, message] of wrong) {
    it(`ends in one line with a module ${what}`, async (t) => {
      const folder = folderFor(t);
      const module = join(folder, 'examine.mjs');
      writeFileSync(module, source);
      const output = join(folder, 'output');
      const { status, stderr } = await ukshm(['relay', MAIN, output, '--examine', module]);
      assert.equal(status, 1);
      // The addon says on standard error where a process died that wrote into foreign memory.
      const lines = stderr.trimEnd().split('\n');
      assert.match(lines[lines.length - 1], message);
      if (!what.includes('writes')) assert.equal(lines.length, 1);
      assert.deepEqual(readdirSync(folder), ['examine.mjs']);
    });
  }

  it('says that the module is not there', async () => {
    const { status, stderr } = await ukshm(['relay', MAIN, '/dev/null', '--examine', './none.mjs']);
    assert.equal(status, 1);
    assert.match(stderr, /^ukshm: the examiner cannot load \.\/none\.mjs: .*\n$/);
  });
});
