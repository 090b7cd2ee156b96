// Node's `net` over a Unix stream socket. Also its time to connect, and its idle CPU.
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { isRoundTrip, type Job, parseJob, Samples, say, sayReady } from './common.js';
import { type Link, runLink } from './link.js';

/** Messages are of a fixed size on a stream, so framing is arithmetic. */
class SocketLink implements Link {
  readonly needsCredit = false;
  onMessage: (bytes: Uint8Array) => void = () => {};
  readonly #socket: Socket;
  readonly #size: number;
  readonly #partial: Uint8Array;
  #held = 0;

  constructor(socket: Socket, receiveSize: number) {
    this.#socket = socket;
    this.#size = receiveSize;
    this.#partial = new Uint8Array(receiveSize);
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
  }

  send(bytes: Uint8Array): boolean {
    // The socket keeps what it is given until the kernel took it: each message needs its own copy.
    const copy = Buffer.allocUnsafe(bytes.length);
    copy.set(bytes);
    return this.#socket.write(copy);
  }

  writable(): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.once('drain', resolve);
    });
  }

  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  close(): void {
    this.#socket.end();
  }

  #take(chunk: Buffer): void {
    const size = this.#size;
    let at = 0;
    if (this.#held > 0) {
      at = Math.min(size - this.#held, chunk.length);
      this.#partial.set(chunk.subarray(0, at), this.#held);
      this.#held += at;
      if (this.#held < size) return;
      this.#held = 0;
      this.onMessage(this.#partial);
    }
    for (; chunk.length - at >= size; at += size) this.onMessage(chunk.subarray(at, at + size));
    this.#partial.set(chunk.subarray(at));
    this.#held = chunk.length - at;
  }
}

/** Connects and closes again and again; the listener's half is to let go. */
async function timeToConnect(job: Job): Promise<void> {
  const samples = new Samples();
  const until = performance.now() + job.warmMs + job.runMs;
  const warmUntil = performance.now() + job.warmMs;
  while (performance.now() < until) {
    const start = performance.now();
    const socket = netConnect(job.address);
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject);
    });
    if (start >= warmUntil) samples.add(performance.now() - start);
    await new Promise((resolve) => {
      socket.once('close', resolve).end();
      socket.resume();
    });
  }
  say(samples.report());
}

async function connectSide(job: Job): Promise<void> {
  if (job.name === 'connect') return timeToConnect(job);
  if (job.name === 'idle') {
    const sockets = [netConnect(job.address), netConnect(job.address)];
    say('idle');
    await sleep(job.warmMs + job.runMs);
    for (const socket of sockets) socket.end();
    return;
  }
  const receiveSize = isRoundTrip(job) ? job.size : 4;
  await runLink(job, new SocketLink(netConnect(job.address), receiveSize));
}

function listenSide(job: Job): void {
  const server = createServer();
  const many = job.name === 'connect' || job.name === 'idle';
  server.on('connection', (socket: Socket) => {
    if (many) {
      socket.on('end', () => socket.end()).resume();
      return;
    }
    server.close();
    runLink(job, new SocketLink(socket, job.size));
  });
  server.listen(job.address, sayReady);
  // These two jobs end when the harness closes standard input.
  if (many) process.stdin.on('end', () => process.exit(0)).resume();
}

const job = parseJob();
if (job.listens) listenSide(job);
else await connectSide(job);
