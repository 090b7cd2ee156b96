// The relay when something goes wrong: whoever is killed, whatever fails, the others stop, one line
// says why, the exit status is not zero, and nothing is left.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import {
  type Ended,
  folderFor,
  isAlive,
  MAIN,
  makeFifo,
  nameIsInUse,
  namesOf,
  noise,
  type Pids,
  processesOf,
  type Running,
  start,
  temporaryBytes,
  ukshm,
  until,
} from './relay-tools.js';

const isRoot = process.geteuid?.() === 0;
/** A user that nothing belongs to. */
const STRANGER = 54321;

function mayRead(uid: number, path: string): boolean {
  return spawnSync('cat', [path], { uid, gid: uid, cwd: '/' }).status === 0;
}

interface Flowing extends Running {
  readonly folder: string;
  readonly output: string;
  readonly pids: Pids;
  readonly supervisor: number;
  readonly names: readonly string[];
}

/** A relay in mid-file: its input is a FIFO that is still open, and some has been written. */
async function flowing(t: TestContext, detached = false): Promise<Flowing> {
  const folder = folderFor(t);
  const input = join(folder, 'input');
  const output = join(folder, 'output');
  makeFifo(input);
  const running = start(['relay', input, output], { detached });
  const supervisor = running.child.pid as number;
  // A reader's end too, so that opening never waits and writing never fails.
  const source = openSync(input, 'r+');
  t.after(() => closeSync(source));
  writeSync(source, noise(60_000));
  await until('bytes in the output', () => (temporaryBytes(folder) ?? 0) >= 60_000);
  const pids = await processesOf(supervisor);
  const names = namesOf(pids);
  assert.equal(names.length, 2, 'the reader and the writer listen');
  return { ...running, folder, output, pids, supervisor, names };
}

async function nothingLeft({ folder, pids, names }: Flowing): Promise<void> {
  await until('the processes to be gone', () => !Object.values(pids).some(isAlive));
  assert.deepEqual(readdirSync(folder), ['input']);
  assert.ok(!names.some(nameIsInUse), 'a name was left');
}

function oneLine({ stderr }: Ended): string {
  assert.match(stderr, /^[^\n]+\n$/, 'one line on standard error');
  return stderr.trimEnd();
}

describe('a relay of which one is killed in mid-file', () => {
  for (const role of ['reader', 'examiner', 'writer'] as const) {
    it(`names the ${role}, and leaves nothing`, async (t) => {
      const relay = await flowing(t);
      process.kill(relay.pids[role], 'SIGKILL');
      const ended = await relay.ended;
      assert.equal(ended.status, 1);
      const line = oneLine(ended);
      assert.match(
        line,
        new RegExp(`^ukshm: the ${role} \\(process \\d+\\) was killed by SIGKILL`),
      );
      await nothingLeft(relay);
    });
  }

  it('stops the three and removes the output when the supervisor is killed', async (t) => {
    const relay = await flowing(t);
    process.kill(relay.supervisor, 'SIGKILL');
    assert.equal((await relay.ended).signal, 'SIGKILL');
    await nothingLeft(relay);
  });

  it('keeps what was at the output before', async (t) => {
    const folder = folderFor(t);
    const output = join(folder, 'output');
    writeFileSync(output, 'before');
    const relay = start(['relay', '/dev/zero', output, '--no-hash']);
    const pids = await processesOf(relay.child.pid as number);
    await until('bytes in the output', () => (temporaryBytes(folder) ?? 0) > 0);
    process.kill(pids.writer, 'SIGKILL');
    assert.equal((await relay.ended).status, 1);
    assert.equal(readFileSync(output, 'utf8'), 'before');
    assert.deepEqual(readdirSync(folder), ['output']);
  });
});

describe('a relay of which one is killed before a byte flows', () => {
  for (const role of ['reader', 'examiner', 'writer'] as const) {
    it(`names the ${role}, and leaves nothing`, async (t) => {
      const folder = folderFor(t);
      makeFifo(join(folder, 'input'));
      const relay = start(['relay', join(folder, 'input'), join(folder, 'output')]);
      const pids = await processesOf(relay.child.pid as number);
      process.kill(pids[role], 'SIGKILL');
      const ended = await relay.ended;
      assert.equal(ended.status, 1);
      assert.match(oneLine(ended), new RegExp(`the ${role} .* was killed by SIGKILL`));
      assert.deepEqual(readdirSync(folder), ['input']);
      assert.ok(!Object.values(pids).some(isAlive));
    });
  }
});

describe('a relay that is interrupted', () => {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`ends by ${signal} with status ${status} and leaves nothing`, async (t) => {
      const relay = await flowing(t);
      process.kill(relay.supervisor, signal);
      const ended = await relay.ended;
      assert.equal(ended.status, status);
      assert.match(oneLine(ended), new RegExp(`^ukshm: stopped .*\\(${signal}\\)$`));
      await nothingLeft(relay);
    });
  }

  it('ends likewise when the signal reaches all processes at once, as from a terminal', async (t) => {
    const relay = await flowing(t, true);
    process.kill(-relay.supervisor, 'SIGINT');
    const ended = await relay.ended;
    assert.equal(ended.status, 130);
    oneLine(ended);
    await nothingLeft(relay);
  });

  it('ends while it still waits for someone to write to the FIFO', async (t) => {
    const folder = folderFor(t);
    makeFifo(join(folder, 'input'));
    const relay = start(['relay', join(folder, 'input'), join(folder, 'output')]);
    const pids = await processesOf(relay.child.pid as number);
    process.kill(relay.child.pid as number, 'SIGINT');
    assert.equal((await relay.ended).status, 130);
    assert.ok(!Object.values(pids).some(isAlive));
    assert.deepEqual(readdirSync(folder), ['input']);
  });
});

describe('a relay whose input or output fails', () => {
  const cases: readonly [string, readonly string[], RegExp][] = [
    ['an input that is not there', ['/nowhere/x', '/dev/null'], /reader cannot open .*\(ENOENT\)$/],
    ['an input that is a folder', ['/usr', '/dev/null'], /reader cannot read .*\(EISDIR\)$/],
    ['an output whose folder is not there', [MAIN, '/nowhere/x'], /cannot create .*\(ENOENT\)$/],
    ['an output that is a folder', [MAIN, '/usr'], /cannot create .*\(EISDIR\)$/],
    ['a full device', [MAIN, '/dev/full'], /writer cannot write .* no space .*\(ENOSPC\)$/],
  ];
  for (const [what, args, line] of cases) {
    it(`says so for ${what}`, async () => {
      const ended = await ukshm(['relay', ...args]);
      assert.equal(ended.status, 1);
      assert.match(oneLine(ended), line);
    });
  }

  it('says so for an input that this user may not read', async (t) => {
    const input = join(folderFor(t), 'input');
    writeFileSync(input, 'secret');
    chmodSync(input, 0);
    // Root may read everything, so it becomes somebody else.
    const uid = isRoot ? STRANGER : undefined;
    if (uid !== undefined && !mayRead(uid, MAIN)) return t.skip(`user ${uid} cannot read ${MAIN}`);
    const ended = await ukshm(['relay', input, '/dev/null'], { uid });
    assert.equal(ended.status, 1);
    assert.match(oneLine(ended), /reader cannot open .* permission denied \(EACCES\)$/);
  });

  it('leaves nothing on a disk that is full', {
    skip: !isRoot && 'mounting a small file system needs root',
  }, async (t) => {
    const disk = join(folderFor(t), 'disk');
    mkdirSync(disk);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk]);
    try {
      const ended = await ukshm(['relay', process.execPath, join(disk, 'output')]);
      assert.equal(ended.status, 1);
      assert.match(oneLine(ended), /writer cannot write .* no space is left .*\(ENOSPC\)$/);
      assert.deepEqual(readdirSync(disk), []);
    } finally {
      execFileSync('umount', [disk]);
    }
  });

  it('ends when whoever reads its standard output stops', async () => {
    const script = '"$0" "$1" relay "$0" - | head -c 100000 | wc -c; wait';
    const shell = spawn('sh', ['-c', script, process.execPath, MAIN]);
    let [stdout, stderr] = ['', ''];
    shell.stdout.on('data', (piece: Buffer) => (stdout += piece));
    shell.stderr.on('data', (piece: Buffer) => (stderr += piece));
    await new Promise((resolve) => shell.once('close', resolve));
    assert.equal(stdout.trim(), '100000');
    assert.match(stderr, /^ukshm: the writer cannot write standard output: .*\(EPIPE\)\n$/);
  });
});
