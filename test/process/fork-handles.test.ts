// Goal: handles go through our `fork` as through Node's, with small and with large messages beside
// them. Method: as in fork-promises.test.ts, each promise against both.
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net, { type AddressInfo, type Server, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { FORKS, type Fork, type Forked, forked } from './forks.js';

function promise(
  what: string,
  run: (fork: Fork, mode: 'json' | 'advanced') => Promise<void>,
): void {
  for (const [name, fork] of FORKS) {
    for (const mode of ['json', 'advanced'] as const) {
      it(`${what} (${name}, ${mode})`, () => run(fork, mode));
    }
  }
}

async function listening(options?: net.ServerOpts): Promise<Server> {
  const server = net.createServer(options ?? {});
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return server;
}

/** Connects to a port, and resolves with all that comes until the other side ends. */
async function readAll(port: number): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await once(socket, 'close');
  return text;
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;
const LARGE = Buffer.alloc(70_000, 7);

/** Lets both directions find their faster way, where they have one. */
async function warmUp(child: Forked): Promise<void> {
  for (let i = 0; i < 8; i++) {
    child.process.send({ warm: LARGE });
    await child.next();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe('handles', () => {
  promise('a server is shared with the child', async (fork, serialization) => {
    const code = `let shared; process.on('message', (m, server) => {
      if (m.warm) return process.send({ warm: Buffer.from(m.warm.data ?? m.warm) });
      if (m.close) return shared.close();
      shared = server;
      server.on('connection', (socket) => socket.end('child ' + m.text));
      server.once('close', () => process.disconnect());
      process.send('listening');
    });`;
    const child = forked(fork, code, { serialization });
    await warmUp(child);
    const server = await listening();
    child.process.send({ text: 'here' }, server);
    await child.next();
    const port = portOf(server);
    server.close();
    assert.equal(await readAll(port), 'child here');
    child.process.send({ close: true });
    assert.deepEqual(await child.exited, { code: 0, signal: null });
  });

  promise(
    'a socket moves to the child, its message before and behind others',
    async (fork, mode) => {
      const code = `process.on('message', (m, socket) => {
      if (m.warm) return process.send({ warm: Buffer.from(m.warm.data ?? m.warm) });
      process.send([m.i, socket !== undefined, Object.keys(m.bytes.data ?? m.bytes).length]);
      socket?.end('from the child');
    });`;
      const child = forked(fork, code, { serialization: mode });
      await warmUp(child);
      const server = await listening({ pauseOnConnect: true });
      const read = readAll(portOf(server));
      const [socket]: [Socket] = (await once(server, 'connection')) as [Socket];
      const large = Buffer.alloc(mode === 'json' ? 150_000 : 1_000_000, 3);
      const small = Buffer.alloc(5);
      // What is sent behind a handle waits until it has arrived.
      child.process.send({ i: 0, bytes: large });
      child.process.send({ i: 1, bytes: large }, socket);
      child.process.send({ i: 2, bytes: small });
      child.process.send({ i: 3, bytes: large });
      const seen = [await child.next(), await child.next(), await child.next(), await child.next()];
      assert.deepEqual(seen, [
        [0, false, large.length],
        [1, true, large.length],
        [2, false, small.length],
        [3, false, large.length],
      ]);
      assert.equal(await read, 'from the child');
      assert.equal(socket.destroyed || (socket as { _handle?: unknown })._handle === null, true);
      server.close();
      await child.end();
    },
  );

  promise('a socket that is kept open stays usable here', async (fork, serialization) => {
    const code = `process.on('message', (m, socket) => {
      socket.write('child;', () => { process.send('written'); socket.unref(); });
    });`;
    const child = forked(fork, code, { serialization });
    const server = await listening();
    const read = readAll(portOf(server));
    const [socket]: [Socket] = (await once(server, 'connection')) as [Socket];
    child.process.send({}, socket, { keepOpen: true });
    await child.next();
    await child.end();
    socket.end('parent');
    assert.equal(await read, 'child;parent');
    server.close();
  });

  promise('a datagram socket moves, and a child sends handles too', async (fork, serialization) => {
    const code = `
      process.on('message', (m, socket) => {
        socket.on('message', (text, from) => {
          const server = net.createServer().listen(0, '127.0.0.1', () => {
            process.send({ heard: String(text) }, server, () => { server.close(); socket.close(); process.disconnect(); });
          });
        });
        process.send('bound');
      });`;
    const child = forked(fork, code, { serialization });
    const socket = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    child.process.send({}, socket as never);
    const { port } = socket.address();
    await child.next();
    // Both would read from it.
    socket.close();
    const got = once(child.process, 'message');
    dgram.createSocket('udp4').unref().send('datagram', port, '127.0.0.1');
    const [message, server] = (await got) as [unknown, Server];
    assert.deepEqual(message, { heard: 'datagram' });
    assert.ok(server.listening);
    server.close();
    assert.deepEqual(await child.exited, { code: 0, signal: null });
  });
});
