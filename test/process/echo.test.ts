// Goal: what one side sends is what the other side reads, whoever the two are and whatever way is
// taken to send and to read.
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { type Channel, connect, listen, type Message } from '../../src/index.js';
import { codeOf, fixture, startActor, uniqueName } from './actors.js';
import { nextOf, type Pair, pairOf } from './local.js';
import { isPattern, pattern } from './pattern.js';
import { ARENA_BYTES, ECHO_SIZES } from './sizes.js';

const OPTIONS = { timeout: 30_000 };

interface Said {
  readonly status: number | null;
  readonly stdout: string;
}

/** Runs one side of the echo, without an IPC channel, in a session of its own. */
function startEcho(context: TestContext, role: 'server' | 'client', name: string): Promise<Said> {
  const child: ChildProcess = spawn('setsid', [
    process.execPath,
    fixture('echo-process'),
    role,
    name,
  ]);
  context.after(() => child.kill('SIGKILL'));
  let stdout = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.pipe(process.stderr);
  return new Promise((resolve) => {
    child.once('close', (status) => resolve({ status, stdout }));
  });
}

/** Sends each size and reads it back. */
async function echoSizes(channel: Channel, sizes: readonly number[]): Promise<void> {
  for (const [id, lengthBytes] of sizes.entries()) {
    await channel.send(pattern(lengthBytes, id), { id });
    const message = await nextOf(channel);
    assert.equal(message.lengthBytes, lengthBytes);
    assert.equal(message.id, id);
    assert.ok(isPattern(message.bytes, id), `${lengthBytes} bytes came back as other bytes`);
    message.release();
  }
}

describe('echo', () => {
  it('passes between processes that have nothing in common', OPTIONS, async (t) => {
    const name = uniqueName('unrelated');
    const [server, client] = await Promise.all([
      startEcho(t, 'server', name),
      startEcho(t, 'client', name),
    ]);
    const { length } = ECHO_SIZES;
    assert.deepEqual(client, { status: 0, stdout: `right ${length} of ${length}\n` });
    assert.deepEqual(server, { status: 0, stdout: 'listening\nserved\n' });
  });

  it('passes at a path too, and leaves no socket file', OPTIONS, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ukshm-echo-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const name = join(folder, 'echo');
    const [server, client] = await Promise.all([
      startEcho(t, 'server', name),
      startEcho(t, 'client', name),
    ]);
    assert.match(client.stdout, new RegExp(`right ${ECHO_SIZES.length} `));
    assert.equal(server.status, 0);
    assert.deepEqual(readdirSync(folder), []);
  });

  it('passes between parent and child', OPTIONS, async (t) => {
    const name = uniqueName('child');
    const child = await startActor(t);
    await child.call('listen', name);
    await child.call('echoAll', name);
    const channel = await connect(name);
    assert.equal(channel.peer.pid, child.pid);
    assert.equal(channel.peer.uid, process.geteuid?.());
    await echoSizes(channel, ECHO_SIZES);
    await channel.close();
    assert.deepEqual(await channel.closed, { reason: 'closed' });
  });

  it('passes between worker threads, several at a time', OPTIONS, async (t) => {
    const name = uniqueName('worker');
    const listener = await listen(name);
    t.after(() => listener.close());
    const workers = [1, 2, 3].map(() => new Worker(fixture('echo-worker'), { workerData: name }));
    t.after(() => Promise.all(workers.map((worker) => worker.terminate())));
    const exits = workers.map((worker) => once(worker, 'exit'));
    const channels = await Promise.all(workers.map(() => listener.accept()));
    await Promise.all(channels.map((channel) => echoSizes(channel, ECHO_SIZES)));
    await Promise.all(channels.map((channel) => channel.close()));
    for (const [status] of await Promise.all(exits)) assert.equal(status, 0);
  });

  it('ends when a worker thread is terminated', OPTIONS, async (t) => {
    const name = uniqueName('terminated');
    const listener = await listen(name);
    t.after(() => listener.close());
    const worker = new Worker(fixture('echo-worker'), { workerData: name });
    const channel = await listener.accept();
    await echoSizes(channel, [1, 100_000]);
    await worker.terminate();
    const { reason, error } = await channel.closed;
    assert.equal(reason, 'peer-gone');
    assert.equal(error?.code, 'ERR_UKSHM_PEER_GONE');
  });

  it('from a worker leaves the process sound when the worker has ended', OPTIONS, async () => {
    const run = promisify(execFile);
    const { stdout } = await run(process.execPath, [fixture('worker-then-trap')]);
    assert.match(stdout, /out of bounds/);
  });

  it('refuses what is longer than the arena', OPTIONS, async (t) => {
    const { near } = await pairOf(t);
    const tooLong = new Uint8Array(ARENA_BYTES + 1);
    assert.throws(() => near.trySend(tooLong), { code: 'ERR_UKSHM_MESSAGE_TOO_LONG' });
    assert.throws(() => near.tryLoan(ARENA_BYTES + 1), { code: 'ERR_UKSHM_MESSAGE_TOO_LONG' });
    assert.equal(await codeOf(near.send(tooLong)), 'ERR_UKSHM_MESSAGE_TOO_LONG');
    assert.equal(await codeOf(near.loan(ARENA_BYTES + 1)), 'ERR_UKSHM_MESSAGE_TOO_LONG');
    for (const wrong of [-1, 1.5, Number.NaN]) {
      assert.throws(() => near.tryLoan(wrong), { code: 'ERR_UKSHM_INVALID_ARGUMENT' });
    }
  });

  it('works without an arena, inline alone', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t, { arenaBytes: 0, ringBytes: 4096 });
    assert.throws(() => near.tryLoan(513), { code: 'ERR_UKSHM_MESSAGE_TOO_LONG' });
    // Round the ring several times.
    for (let id = 0; id < 100; id++) {
      await near.send(pattern(512, id), { id });
      const message = await nextOf(far);
      assert.ok(isPattern(message.bytes, id));
      message.release();
    }
  });
});

describe('a message', () => {
  it('is read as text, as JSON and as a copy of one’s own', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const value = { text: 'Grüße, 世界 🌍', list: [1, 2.5, null] };
    for (const padding of [0, 20_000]) {
      const text = JSON.stringify({ ...value, padding: 'x'.repeat(padding) });
      await near.send(Buffer.from(text), { type: 7, id: 0xffffffff });
      const message = await nextOf(far);
      assert.equal(message.text(), text);
      assert.deepEqual(message.json(), JSON.parse(text));
      assert.equal(message.type, 7);
      assert.equal(message.id, 0xffffffff);
      const copy = message.copy();
      message.release();
      copy[0] = 0x20; // It is ours to write.
      assert.equal(Buffer.from(copy).toString(), ` ${text.slice(1)}`);
    }
  });

  it('carries types and ids to their limits, and no further', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    for (const lengthBytes of [4, 10_000]) {
      await near.send(new Uint8Array(lengthBytes), { type: 16_383, id: 4_294_967_295 });
      const message = await nextOf(far);
      assert.deepEqual([message.type, message.id], [16_383, 4_294_967_295]);
      message.release();
      for (const wrong of [{ type: 16_384 }, { type: -1 }, { id: 2 ** 32 }, { id: 0.5 }]) {
        const bytes = new Uint8Array(lengthBytes);
        assert.throws(() => near.trySend(bytes, wrong), { code: 'ERR_UKSHM_INVALID_ARGUMENT' });
        assert.equal(await codeOf(near.send(bytes, wrong)), 'ERR_UKSHM_INVALID_ARGUMENT');
      }
    }
  });

  it(
    'is released in any order, once or more often, and not read afterwards',
    OPTIONS,
    async (t) => {
      const { near, far } = await pairOf(t);
      const sizes = [100, 100_000, 200, 50_000, 300];
      for (const [id, lengthBytes] of sizes.entries())
        await near.send(pattern(lengthBytes, id), { id });
      const held: Message[] = [];
      for (let i = 0; i < sizes.length; i++) held.push(await nextOf(far));
      assert.equal(far.stats().heldInline, 3);
      assert.equal(far.stats().heldChunks, 2);
      for (const index of [3, 0, 4, 1, 2]) {
        const message = held[index] as Message;
        assert.ok(isPattern(message.bytes, index));
        message.release();
        message.release();
        assert.throws(() => message.bytes, { code: 'ERR_UKSHM_MESSAGE_RELEASED' });
        assert.throws(() => message.text(), { code: 'ERR_UKSHM_MESSAGE_RELEASED' });
        assert.throws(() => message.copy(), { code: 'ERR_UKSHM_MESSAGE_RELEASED' });
        assert.equal(await codeOf(message.forward(far)), 'ERR_UKSHM_MESSAGE_RELEASED');
      }
      const { heldInline, heldChunks } = far.stats();
      assert.deepEqual({ heldInline, heldChunks }, { heldInline: 0, heldChunks: 0 });
      await near.close();
      assert.deepEqual(near.stats().bytesLent, 0);
    },
  );
});

describe('reading', () => {
  it('by drain hands out each message once, and keeps those that are taken', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    assert.equal(
      far.drain(() => assert.fail('nothing was sent')),
      0,
    );
    const sizes = [0, 10, 9000, 100_000, 20];
    for (const [id, lengthBytes] of sizes.entries()) near.trySend(pattern(lengthBytes, id), { id });
    assert.equal(await far.readable(), true);
    const taken: Message[] = [];
    const count = far.drain((cursor) => {
      const { memory, offset, lengthBytes, id } = cursor;
      assert.equal(lengthBytes, sizes[id]);
      assert.ok(isPattern(memory.subarray(offset, offset + lengthBytes), id));
      assert.ok(isPattern(cursor.bytes, id));
      if (id % 2 === 0) taken.push(cursor.take());
    }, 4);
    assert.equal(count, 4, 'the limit');
    assert.equal(
      far.drain((cursor) => taken.push(cursor.take())),
      1,
    );
    assert.deepEqual(
      taken.map(({ id }) => id),
      [0, 2, 4],
    );
    for (const message of taken) {
      assert.ok(isPattern(message.bytes, message.id));
      message.release();
    }
    await near.close();
    assert.equal(await far.readable(), false);
    assert.equal(
      far.drain(() => assert.fail('all was read')),
      0,
    );
  });

  it('by drain counts a message as read whose handler throws', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    for (const id of [1, 2, 3]) near.trySend(pattern(id === 2 ? 50_000 : 50, id), { id });
    const seen: number[] = [];
    const handler = ({ id }: { id: number }): void => {
      seen.push(id);
      if (id < 3) throw new Error(`no ${id}`);
    };
    assert.throws(() => far.drain(handler), /no 1/);
    assert.throws(() => far.drain(handler), /no 2/);
    assert.equal(far.drain(handler), 1);
    assert.deepEqual(seen, [1, 2, 3]);
    await near.close();
  });

  it('by drain inside its own handler is an error', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    near.trySend(new Uint8Array(8));
    assert.throws(() => far.drain(() => far.drain(() => {})), { code: 'ERR_UKSHM_BUSY' });
  });

  it('by a loop that was left goes on where it stopped', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const count = 1000;
    const seen: number[] = [];
    const send = async (): Promise<void> => {
      for (let id = 0; id < count; id++) await near.send(pattern(id, id), { id });
      await near.close();
    };
    const sent = send();
    while (seen.length < count) {
      const before = seen.length;
      for await (const message of far) {
        assert.ok(isPattern(message.bytes, message.id));
        seen.push(message.id);
        message.release();
        if (seen.length % 7 === 0) break;
      }
      if (seen.length === before) break;
    }
    assert.deepEqual(
      seen,
      Array.from({ length: count }, (_, id) => id),
    );
    for await (const message of far) assert.fail(`one more: ${message.id}`);
    await sent;
  });

  it('has one consumer at a time', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const first = far[Symbol.asyncIterator]();
    const waiting = first.next();
    const second = far[Symbol.asyncIterator]();
    assert.equal(await codeOf(second.next()), 'ERR_UKSHM_BUSY');
    assert.equal(await codeOf(far.readable()), 'ERR_UKSHM_BUSY');
    assert.throws(() => far.drain(() => {}), { code: 'ERR_UKSHM_BUSY' });
    await near.send(Buffer.from('for the first'));
    const { value } = await waiting;
    assert.equal((value as Message).text(), 'for the first');
    (value as Message).release();
    await first.return?.();
    const readable = far.readable();
    assert.equal(await codeOf(far.readable()), 'ERR_UKSHM_BUSY');
    await near.send(Buffer.from('for anyone'));
    assert.equal(await readable, true);
    assert.equal((await nextOf(far)).text(), 'for anyone');
  });

  const busyWays: readonly (readonly [
    string,
    (pair: Pair, over: () => boolean) => Promise<void>,
  ])[] = [
    [
      'by a loop over messages that never end',
      async ({ near, far }, over) => {
        for (let i = 0; i < 100; i++) near.trySend(new Uint8Array(8));
        for await (const message of far) {
          message.release();
          near.trySend(new Uint8Array(8));
          if (over()) break;
        }
      },
    ],
    [
      'by readable and drain of what never ends',
      async ({ near, far }, over) => {
        for (let i = 0; i < 100; i++) near.trySend(new Uint8Array(8));
        while (!over() && (await far.readable())) {
          far.drain(() => near.trySend(new Uint8Array(8)), 50);
        }
      },
    ],
    [
      'by sends that never have to wait',
      async ({ near, far }, over) => {
        while (!over()) {
          await near.send(new Uint8Array(8));
          far.drain(() => {});
        }
      },
    ],
  ];
  for (const [how, work] of busyWays) {
    it(`${how} leaves other work its turn`, OPTIONS, async (t) => {
      const pair = await pairOf(t);
      let turns = 0;
      const timer = setInterval(() => turns++, 1);
      const startMs = performance.now();
      // Each turn has a share of 2 ms: it takes some 20 ms, or for ever.
      await work(pair, () => turns >= 10 || performance.now() - startMs > 10_000);
      clearInterval(timer);
      assert.ok(turns >= 10, `${turns} turns`);
    });
  }
});
