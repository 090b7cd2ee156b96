// The two ways to fork that tests compare, and what they do with a child.
import nodeChildProcess, { type ChildProcess, type ForkOptions } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { fork as ukshmFork } from '../../src/patterns/child-process/index.js';
import { fixture, PATIENCE_MS } from './actors.js';

/** `fork` of Node, or ours. */
export type Fork = typeof nodeChildProcess.fork;

export const FORKS: readonly (readonly [name: string, fork: Fork])[] = [
  ['node:child_process', nodeChildProcess.fork],
  ['ukshm/child-process', ukshmFork],
];
export { ukshmFork };

/** One test for each of the two. */
export function promise(what: string, run: (fork: Fork) => Promise<void>): void {
  for (const [name, fork] of FORKS) it(`${what} (${name})`, () => run(fork));
}

/** What was thrown, by its code or its name. */
export function codeOf(action: () => unknown): string {
  try {
    action();
    return 'nothing';
  } catch (error) {
    const { code, name } = error as NodeJS.ErrnoException;
    return typeof code === 'string' ? code : name;
  }
}

/** A child that answers what it gets, and stays. */
export const STAY: string = `process.on('message', (message) => process.send(message));`;

const RUN_CODE = fixture('run-code');

/** How a child ended. */
export interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A child that runs a piece of code, and what it sends. */
export class Forked {
  readonly process: ChildProcess;
  readonly exited: Promise<End>;
  readonly closed: Promise<End>;
  readonly errors: NodeJS.ErrnoException[] = [];
  readonly #messages: unknown[] = [];
  #wake: () => void = () => {};

  constructor(child: ChildProcess) {
    this.process = child;
    child.on('error', (error: NodeJS.ErrnoException) => this.errors.push(error));
    const event = (name: 'exit' | 'close'): Promise<End> =>
      new Promise((resolve) => child.once(name, (code, signal) => resolve({ code, signal })));
    this.exited = event('exit');
    this.closed = event('close');
    child.on('message', (message) => {
      this.#messages.push(message);
      this.#wake();
    });
    child.on('close', () => this.#wake());
    child.on('exit', () => setTimeout(() => this.#wake(), 100));
    setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS).unref();
  }

  /** The next message that the child sends. */
  async next(): Promise<never> {
    while (this.#messages.length === 0) {
      if (this.process.exitCode !== null) throw new Error(`exit ${this.process.exitCode}`);
      if (this.process.signalCode !== null) throw new Error(`ended by ${this.process.signalCode}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#messages.shift() as never;
  }

  /** Sends, and resolves as the callback is called. */
  send(message: unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      this.process.send(message as object, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Disconnects; Node emits no `close` then. */
  async end(): Promise<End> {
    if (this.process.connected) this.process.disconnect();
    return this.exited;
  }
}

/** Forks a child that runs `code`; it has `net` and `dgram` at hand. */
export function forked(fork: Fork, code: string, options?: ForkOptions): Forked {
  return new Forked(fork(RUN_CODE, [code], options));
}

/** Bytes that this process has written by `write` so far: those of messages are among them. */
export function writtenBytes(): number {
  return Number(/wchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
}

/** Answers what it gets; a part named `bytes` as a Buffer again, with what this process has written. */
export const ECHO = `
  const { readFileSync } = await import('node:fs');
  const written = () => Number(/wchar: (\\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))[1]);
  process.on('message', (m) => {
    const bytes = m.bytes?.type === 'Buffer' ? Buffer.from(m.bytes.data) : m.bytes;
    process.send(bytes === undefined ? m : { ...m, bytes, written: written() });
  });`;

/** Until large parts go through shared memory both ways, with a child that runs `ECHO`. */
export async function untilShared(child: Forked): Promise<void> {
  const bytes = Buffer.alloc(400_000, 1);
  const start = performance.now();
  for (let wroteThere = 0; performance.now() - start < PATIENCE_MS; ) {
    const before = writtenBytes();
    child.process.send({ bytes });
    const wroteHere = writtenBytes() - before;
    const { written }: { written: number } = await child.next();
    if (wroteHere < bytes.length / 4 && written - wroteThere < bytes.length / 4) return;
    wroteThere = written;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error('large parts still go through the pipe');
}
