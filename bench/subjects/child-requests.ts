// Requests over `child.send`, with the `advanced` serialization and a number of our own. Run with
// `connect` alone: it forks its other half.
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { runRequests, Waiting } from './asking.js';
import { moveAside, parseJob } from './common.js';

interface Numbered {
  readonly id: number;
  readonly body: Uint8Array;
}

const job = parseJob();
if (job.listens) {
  moveAside();
  process.on('message', (request: Numbered) => process.send?.(request));
} else {
  const args = ['listen', ...process.argv.slice(3)];
  const child = fork(fileURLToPath(import.meta.url), args, { serialization: 'advanced' });
  const waiting = new Waiting();
  child.on('message', ({ id, body }: Numbered) => waiting.onReply(id, body));
  await runRequests(job, (body) => waiting.ask((id) => child.send({ id, body })));
  child.disconnect();
}
