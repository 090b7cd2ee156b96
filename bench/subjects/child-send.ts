// `child.send` between parent and child, with the `advanced` serialization. Run with `connect`
// alone: it forks its other half.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { moveAside, parseJob } from './common.js';
import { type Link, runLink } from './link.js';

class IpcLink implements Link {
  readonly needsCredit = true;
  onMessage: (bytes: Uint8Array) => void = () => {};
  readonly #end: ChildProcess | NodeJS.Process;

  constructor(end: ChildProcess | NodeJS.Process) {
    this.#end = end;
    end.on('message', (bytes: Uint8Array) => this.onMessage(bytes));
  }

  send(bytes: Uint8Array): boolean {
    this.#end.send?.(bytes);
    return true;
  }

  async writable(): Promise<void> {}

  close(): void {
    // The child hangs up, after its last message has left.
    if (this.#end === process) setImmediate(() => process.disconnect());
  }
}

const job = parseJob();
if (job.listens) {
  moveAside();
  await runLink(job, new IpcLink(process));
} else {
  const args = ['listen', ...process.argv.slice(3)];
  const child = fork(fileURLToPath(import.meta.url), args, { serialization: 'advanced' });
  await runLink(job, new IpcLink(child));
}
