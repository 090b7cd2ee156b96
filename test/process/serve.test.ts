// Goal: a server answers many processes at a time, a bounded number of requests at a time, and
// neither its end nor a client's leaves anybody waiting.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { type Channel, connect, listen, type RemoteError, serve } from '../../src/index.js';
import { codeOf, DEATH_MS, fixture, type Owner, uniqueName, until } from './actors.js';
import { WANT } from './fixtures/request-wants.js';
import { isPending, pairOf } from './local.js';
import { isPattern, pattern } from './pattern.js';

const OPTIONS = { timeout: 30_000 };

interface ServerProcess {
  readonly child: ChildProcess;
  readonly name: string;
  /** What it has printed. */
  readonly lines: string[];
}

async function startServer(owner: Owner, concurrency = 64): Promise<ServerProcess> {
  const name = uniqueName('server');
  const child = spawn(process.execPath, [fixture('request-server'), name, `${concurrency}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  owner.after(() => child.kill('SIGKILL'));
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  await until('the server is ready', () => lines.includes('ready'));
  return { child, name, lines };
}

async function client(owner: Owner, name: string): Promise<Channel> {
  const channel = await connect(name);
  owner.after(() => channel.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return channel;
}

describe('a server in another process', () => {
  it('answers small and large requests of several clients', OPTIONS, async (t) => {
    const { name } = await startServer(t);
    const clients = await Promise.all([1, 2, 3].map(() => client(t, name)));
    const work = clients.map(async (channel, c) => {
      const asked = Array.from({ length: 300 }, async (_, i) => {
        const size = i % 50 === 0 ? 300_000 : 13 * i;
        const reply = await channel.request(pattern(size, i + c));
        assert.ok(isPattern(reply.bytes, i + c));
        reply.release();
      });
      await Promise.all(asked);
    });
    await Promise.all(work);
    const [first] = clients;
    const large = await (first as Channel).request(Uint8Array.of(7), { type: WANT.large });
    assert.equal(large.lengthBytes, 1_000_000);
    assert.ok(large.bytes.every((byte) => byte === 7));
    large.release();
    const empty = await (first as Channel).request(Uint8Array.of(7), { type: WANT.nothing });
    assert.equal(empty.lengthBytes, 0);
  });

  it('sends errors of its handlers, and goes on', OPTIONS, async (t) => {
    const { name } = await startServer(t);
    const channel = await client(t, name);
    for (const [type, words] of [
      [WANT.throw, 'thrown'],
      [WANT.reject, 'rejected'],
    ] as const) {
      const error = await channel.request(new Uint8Array(1), { type }).catch((reason) => reason);
      assert.deepEqual(
        [(error as RemoteError).code, (error as RemoteError).remoteName, error.message],
        ['ERR_UKSHM_REMOTE', 'RangeError', words],
      );
    }
    (await channel.request(new Uint8Array(1))).release();
  });

  it('runs no more handlers at a time than it was told', OPTIONS, async (t) => {
    const { name } = await startServer(t, 3);
    const clients = await Promise.all([1, 2].map(() => client(t, name)));
    const asked = clients.flatMap((channel) =>
      Array.from({ length: 10 }, () => channel.request(new Uint8Array(1), { type: WANT.count })),
    );
    const counts = (await Promise.all(asked)).map((reply) => reply.bytes[0]);
    assert.equal(counts.length, 20);
    assert.ok(
      counts.every((count) => (count ?? 9) <= 3),
      String(counts),
    );
    assert.ok(counts.includes(3));
  });

  it('hands on what is no request, and says why a channel ended', OPTIONS, async (t) => {
    const { name, lines, child } = await startServer(t);
    const channel = await client(t, name);
    await channel.send(new Uint8Array(77));
    await until('it was seen', () => lines.includes('message 77'));
    const victim = spawn(
      process.execPath,
      ['-e', `import(process.argv[1]).then(({ connect }) => connect(process.argv[2]))`]
        .concat(new URL('../../src/index.js', import.meta.url).href)
        .concat(name),
      { stdio: 'inherit' },
    );
    t.after(() => victim.kill('SIGKILL'));
    await until('it is connected', async () => {
      const { listListeners } = await import('../../src/index.js');
      const known = (await listListeners()).find((listener) => listener.name === name);
      return known?.channels.length === 2;
    });
    victim.kill('SIGKILL');
    await until('its death is told', () => lines.includes('error ERR_UKSHM_PEER_GONE'), DEATH_MS);
    (await channel.request(new Uint8Array(1))).release();
    child.stdin?.end();
    await until('it has closed', () => lines.includes('closed'));
  });

  it('that is killed has all that wait for it told at once', OPTIONS, async (t) => {
    const { name, child, lines } = await startServer(t);
    const channel = await client(t, name);
    const asked = [1, 2, 3].map(() =>
      codeOf(channel.request(new Uint8Array(1), { type: WANT.never })),
    );
    await until('they are there', () => lines.filter((line) => line === 'waiting').length === 3);
    const start = performance.now();
    child.kill('SIGKILL');
    assert.deepEqual(await Promise.all(asked), Array(3).fill('ERR_UKSHM_PEER_GONE'));
    assert.ok(performance.now() - start < DEATH_MS);
    assert.equal(await codeOf(channel.request(new Uint8Array(1))), 'ERR_UKSHM_PEER_GONE');
  });

  it('is told by a signal that its client has gone', OPTIONS, async (t) => {
    const { name, lines } = await startServer(t);
    const channel = await client(t, name);
    const asked = codeOf(channel.request(new Uint8Array(1), { type: WANT.never }));
    await until('it is there', () => lines.includes('waiting'));
    await channel.close();
    assert.equal(await asked, 'ERR_UKSHM_CLOSED');
    await until('it knows', () => lines.includes('aborted'), DEATH_MS);
  });
});

describe('a server that closes', () => {
  it('finishes what it has begun, and begins nothing more', OPTIONS, async (t) => {
    const name = uniqueName('closing');
    const listener = await listen(name);
    t.after(() => listener.close());
    const waiting: (() => void)[] = [];
    const server = serve(listener, (request) => {
      return new Promise((resolve) => waiting.push(() => resolve(request.copy())));
    });
    const channel = await client(t, name);
    const begun = channel.request(Buffer.from('begun'));
    await until('it runs', () => server.running === 1);
    const closed = server.close();
    const late = codeOf(channel.request(Buffer.from('late')));
    assert.ok(await isPending(closed));
    assert.equal(server.running, 1);
    waiting[0]?.();
    assert.equal((await begun).text(), 'begun');
    await closed;
    assert.equal(await late, 'ERR_UKSHM_PEER_CLOSED');
    assert.equal(await codeOf(connect(name)), 'ERR_UKSHM_NO_LISTENER');
  });

  it('may serve one channel, and be closed by a signal', OPTIONS, async (t) => {
    const { near, far } = await pairOf(t);
    const controller = new AbortController();
    const server = serve(far, (request) => request.bytes, { signal: controller.signal });
    const reply = await near.request(Buffer.from('one'));
    assert.equal(reply.text(), 'one');
    controller.abort();
    await server.closed;
    assert.equal((await near.closed).reason, 'peer-closed');
  });

  it('refuses a concurrency that is none', OPTIONS, async (t) => {
    const { far } = await pairOf(t);
    for (const concurrency of [0, -1, 1.5, Number.NaN]) {
      assert.throws(() => serve(far, () => undefined, { concurrency }), {
        code: 'ERR_UKSHM_INVALID_ARGUMENT',
      });
    }
  });
});
