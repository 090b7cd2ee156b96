// Goal: whatever stands behind a name that this user owns, a connector that meets it is told what
// is wrong, in time, keeps nothing of it, and goes on with its other channels.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../src/abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../src/abi/memfd.js';
import { encodeRefusal, WELCOME_BYTES } from '../../src/channel/meeting/wire.js';
import { outboxLayout } from '../../src/memory/outbox-layout.js';
import {
  addSeals,
  allocate,
  closeDescriptor,
  memfdCreate,
  truncate,
} from '../../src/sys/memory.js';
import { unixSocket } from '../../src/sys/socket.js';
import { type Actor, cleanup, codeOf, startActor, uniqueName, until } from './actors.js';
import type { Usage } from './fixtures/actor.js';
import { cannotCompile, compileHostile } from './hostile-program.js';
import { ALL_SEALS, rawAccept, rawListen, sendWith, welcomeOf } from './raw-peer.js';

const OPTIONS = { timeout: 30_000 };
const RING_BYTES = 4096;
const ARENA_BYTES = 65536;
const SIZE_BYTES = outboxLayout(RING_BYTES, ARENA_BYTES).totalBytes;
const SIZE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW;
const CONNECT_MS = 700;

interface Memory {
  readonly sizeBytes?: number;
  readonly allocatedBytes?: number;
  readonly seals?: number;
}

/** A memfd such as an outbox lies in, or not quite. */
function memfd({ sizeBytes = SIZE_BYTES, allocatedBytes, seals = ALL_SEALS }: Memory): number {
  const fd = memfdCreate('hostile', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  truncate(fd, sizeBytes);
  if (allocatedBytes !== 0) allocate(fd, allocatedBytes ?? sizeBytes);
  addSeals(fd, seals);
  return fd;
}

const theirs = (memory: Memory = {}): number => memfd(memory);
const ours = (memory: Memory = {}): number => memfd({ seals: SIZE_SEALS, ...memory });

let victim: Actor;
let honestName: string;

/** Meets the victim with this welcome; the code with which its `connect` fails. */
async function meetWith(
  welcome: readonly Uint8Array[],
  fds: readonly number[],
  everyPiece = false,
): Promise<{ code: string; message: string; ms: number }> {
  const name = uniqueName('bad-listener');
  const listening = rawListen(name);
  const start = performance.now();
  const connecting = victim.call('connect', name, 'bad', { timeoutMs: CONNECT_MS });
  const fd = await rawAccept(listening);
  for (const [index, piece] of welcome.entries()) {
    sendWith(fd, piece, index === 0 || everyPiece ? fds : []);
  }
  try {
    await connecting;
    return { code: 'none', message: '', ms: 0 };
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message, ms: performance.now() - start };
  } finally {
    closeDescriptor(fd);
    closeDescriptor(listening);
  }
}

/** The victim's honest channel still works, and its timers were not late. */
async function expectHonest(): Promise<void> {
  await victim.call('send', 'honest', 30_000, 3);
  assert.ok((await victim.call('receive', 'honest', 1))[0]?.right);
  const late = await victim.call('worstTurn');
  assert.ok(late < 1000, `a timer was ${late} ms late`);
}

async function expectNothingLeft(before: {
  fds: readonly string[];
  memfds: number;
}): Promise<void> {
  await until('nothing is left', async () => {
    const { fds, memfds } = await victim.call('usage');
    return fds.length === before.fds.length && memfds === before.memfds;
  });
}

describe('a hostile listener', () => {
  const suite = cleanup();
  before(async () => {
    honestName = uniqueName('honest');
    const echo = await startActor(suite);
    victim = await startActor(suite, { watchTurns: true });
    await echo.call('listen', honestName);
    await echo.call('echoAll', honestName);
    await victim.call('connect', honestName, 'honest');
  });
  after(() => suite.end());

  const welcome = welcomeOf(RING_BYTES, ARENA_BYTES);
  const half = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
  const memories: readonly (readonly [string, () => number[], RegExp])[] = [
    ['no descriptors', () => [], /without two/],
    ['one descriptor', () => [theirs()], /without two/],
    ['an outbox that is not sealed', () => [theirs({ seals: 0 }), ours()], /seals/],
    ['an outbox whose seals are open', () => [theirs({ seals: half }), ours()], /seals/],
    [
      'an outbox that can be written anew',
      () => [theirs({ seals: SIZE_SEALS | F_SEAL_SEAL }), ours()],
      /seals/,
    ],
    ['an outbox for us that can shrink', () => [theirs(), ours({ seals: F_SEAL_GROW })], /seals/],
    [
      'an outbox for us that cannot be sealed',
      () => [theirs(), ours({ seals: SIZE_SEALS | F_SEAL_SEAL })],
      /seals/,
    ],
    [
      'an outbox for us that cannot be written',
      () => [theirs(), ours({ seals: SIZE_SEALS | F_SEAL_WRITE })],
      /seals/,
    ],
    ['a short outbox', () => [theirs({ sizeBytes: SIZE_BYTES - 4096 }), ours()], /bytes/],
    ['a long outbox', () => [theirs(), ours({ sizeBytes: SIZE_BYTES + 65536 })], /bytes/],
    ['a sparse outbox', () => [theirs({ allocatedBytes: 0 }), ours()], /sparse/],
    [
      'an outbox that is sparse in one page',
      () => [theirs(), ours({ allocatedBytes: SIZE_BYTES - 4096 })],
      /sparse/,
    ],
    ['a regular file', () => [openSync('/proc/version', 'r'), ours()], /not a memfd/],
    ['a folder', () => [theirs(), openSync('/', 'r')], /not a memfd/],
    ['a device', () => [openSync('/dev/zero', 'r'), ours()], /not a memfd/],
    ['a socket', () => [theirs(), unixSocket()], /not a memfd/],
  ];
  for (const [what, make, words] of memories) {
    it(`that passes ${what}`, OPTIONS, async () => {
      const before = await victim.call('usage');
      const fds = make();
      const { code, message } = await meetWith([welcome], fds);
      for (const fd of fds) closeDescriptor(fd);
      assert.equal(code, 'ERR_UKSHM_PEER_MISBEHAVED', message);
      assert.match(message, words);
      await expectNothingLeft(before);
      await expectHonest();
    });
  }

  it('that passes a pipe', OPTIONS, async (t) => {
    const before = await victim.call('usage');
    const folder = mkdtempSync(join(tmpdir(), 'ukshm-pipe-'));
    t.after(() => rmSync(folder, { recursive: true }));
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const pipe = openSync(join(folder, 'pipe'), 'r+');
    const fds = [pipe, pipe];
    const { code, message } = await meetWith([welcome], fds);
    closeSync(pipe);
    assert.equal(code, 'ERR_UKSHM_PEER_MISBEHAVED', message);
    await expectNothingLeft(before);
    await expectHonest();
  });

  it('that passes descriptors with every byte leaves none behind', OPTIONS, async () => {
    const before = await victim.call('usage');
    const fds = [theirs({ seals: 0 }), ours()];
    const bytes = Array.from(welcome, (byte) => Uint8Array.of(byte));
    const { code } = await meetWith(bytes, fds, true);
    for (const fd of fds) closeDescriptor(fd);
    assert.equal(code, 'ERR_UKSHM_PEER_MISBEHAVED');
    await expectNothingLeft(before);
    await expectHonest();
  });

  it('that passes four descriptors leaves none behind', OPTIONS, async () => {
    const before = await victim.call('usage');
    const fds = [theirs({ seals: 0 }), ours(), theirs(), theirs()];
    const { code } = await meetWith([welcome], fds);
    for (const fd of fds) closeDescriptor(fd);
    assert.equal(code, 'ERR_UKSHM_PEER_MISBEHAVED');
    await expectNothingLeft(before);
  });

  const edit = (offset: number, value: number): Uint8Array => {
    const copy = welcome.slice();
    new DataView(copy.buffer).setUint32(offset, value, true);
    return copy;
  };
  const answers: readonly (readonly [string, Uint8Array, string])[] = [
    ['garbage', new Uint8Array(WELCOME_BYTES).fill(0x5a), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['another version', edit(4, 2), 'ERR_UKSHM_VERSION'],
    ['an unknown refusal', edit(8, 99), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['a ring of no power of two', edit(16, 4097), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['a ring of nothing', edit(24, 0), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['an odd arena', edit(20, 1), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['an arena of 2 GiB', edit(28, 0x80000000), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['sizes that the memory has not', edit(20, 0x40000000), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['memory on huge pages that is not', edit(12, 2), 'ERR_UKSHM_PEER_MISBEHAVED'],
    ['that it cannot make the memory', encodeRefusal('no-memory'), 'ERR_UKSHM_NO_MEMORY'],
    ['half a welcome and silence', welcome.subarray(0, 40), 'ERR_UKSHM_TIMEOUT'],
    ['nothing', new Uint8Array(0), 'ERR_UKSHM_TIMEOUT'],
  ];
  for (const [what, bytes, expected] of answers) {
    it(`that answers ${what}`, OPTIONS, async () => {
      const before = await victim.call('usage');
      const fds = [theirs(), ours()];
      const { code, message, ms } = await meetWith(bytes.length > 0 ? [bytes] : [], fds);
      for (const fd of fds) closeDescriptor(fd);
      assert.equal(code, expected, message);
      if (expected === 'ERR_UKSHM_TIMEOUT')
        assert.ok(ms >= CONNECT_MS - 50 && ms < 20 * CONNECT_MS);
      await expectNothingLeft(before);
      await expectHonest();
    });
  }

  it('that hangs up instead of answering', OPTIONS, async () => {
    const name = uniqueName('rude');
    const listening = rawListen(name);
    const connecting = victim.call('connect', name, 'bad');
    closeDescriptor(await rawAccept(listening));
    assert.equal(await codeOf(connecting), 'ERR_UKSHM_PEER_GONE');
    closeDescriptor(listening);
    await expectHonest();
  });
});

/** Why no file system of our own can be mounted here; `false` if it can. */
function cannotMount(): string | false {
  if (cannotCompile !== false) return cannotCompile;
  if (process.geteuid?.() !== 0)
    return 'not possible here: needs root, to mount a FUSE file system';
  return existsSync('/dev/fuse')
    ? false
    : 'not possible here: no /dev/fuse; run as root: modprobe fuse';
}

describe('a file system that never answers', { skip: cannotMount() }, () => {
  it('holds up nobody to whom a file of it is passed', OPTIONS, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ukshm-fuse-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const daemon: ChildProcess = spawn(compileHostile(t), ['fuse', folder]);
    let ended = false;
    const end = async (): Promise<void> => {
      if (ended) return;
      ended = true;
      daemon.stdin?.end();
      await once(daemon, 'exit');
    };
    daemon.stderr?.pipe(process.stderr);
    const [line] = (await Promise.race([
      once(daemon.stdout as NodeJS.EventEmitter, 'data'),
      once(daemon, 'exit').then(() => ['']),
    ])) as [Buffer | string];
    if (!String(line).startsWith('mounted')) {
      t.skip('not possible here: this kernel or container forbids to mount a FUSE file system');
      return;
    }
    const suite = cleanup();
    let file = -1;
    let before: Usage | undefined;
    try {
      honestName = uniqueName('honest');
      const echo = await startActor(suite);
      victim = await startActor(suite, { watchTurns: true });
      await echo.call('listen', honestName);
      await echo.call('echoAll', honestName);
      await victim.call('connect', honestName, 'honest');
      before = await victim.call('usage');
      // Not before: a process forked from here would hang in its exec, with the file to close.
      file = openSync(join(folder, 'file'), 'r');
      // More often than Node's thread pool has threads: none of them may be lost.
      for (let i = 0; i < 6; i++) {
        const good = theirs();
        const fds = i % 2 === 0 ? [file, ours()] : [good, file];
        const { code, message, ms } = await meetWith([welcomeOf(RING_BYTES, ARENA_BYTES)], fds);
        assert.equal(code, 'ERR_UKSHM_PEER_MISBEHAVED', message);
        assert.ok(ms < 20 * CONNECT_MS, `after ${ms} ms`);
        closeDescriptor(good);
        await expectHonest();
      }
      await victim.call('connect', honestName, 'more');
      await victim.call('send', 'more', 100_000, 8);
      assert.ok((await victim.call('receive', 'more', 1))[0]?.right, 'a new channel can be made');
      await victim.call('close', 'more');
      assert.equal(await victim.call('spawnTrue'), 0, 'a process can be started');
    } finally {
      await end();
      if (file >= 0) closeDescriptor(file);
      await expectNothingLeft(before ?? { fds: [], memfds: 0 });
      await suite.end();
    }
  });
});
