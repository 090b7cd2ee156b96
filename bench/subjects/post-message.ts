// `postMessage` between the main thread and a worker thread of one process. Run with `connect`
// alone: it starts its other half.
import { fileURLToPath } from 'node:url';
import { type MessagePort, parentPort, Worker } from 'node:worker_threads';
import { moveAside, parseJob } from './common.js';
import { type Link, runLink } from './link.js';

class PortLink implements Link {
  readonly needsCredit = true;
  onMessage: (bytes: Uint8Array) => void = () => {};
  readonly #end: MessagePort | Worker;

  constructor(end: MessagePort | Worker) {
    this.#end = end;
    end.on('message', (bytes: Uint8Array) => this.onMessage(bytes));
  }

  send(bytes: Uint8Array): boolean {
    this.#end.postMessage(bytes);
    return true;
  }

  async writable(): Promise<void> {}

  close(): void {
    if ('close' in this.#end) this.#end.close();
  }
}

if (parentPort !== null) {
  moveAside();
  await runLink(parseJob(process.argv.slice(2)), new PortLink(parentPort));
} else {
  const argv = ['listen', ...process.argv.slice(3)];
  const worker = new Worker(fileURLToPath(import.meta.url), { argv });
  await runLink(parseJob(), new PortLink(worker));
}
