// Messages from a parent to the child that it forked, over Node's own `fork` and over ours: an object
// with a Buffer in it, answered by a few bytes. In mode 'json' a Buffer arrives as an array of
// numbers. Run with `connect` alone: it forks its other half.
import node from 'node:child_process';
import { fileURLToPath } from 'node:url';
import ukshm from '../../src/patterns/child-process/index.js';
import { runRequests, Waiting } from './asking.js';
import { Payload, parseJob } from './common.js';

interface Numbered {
  readonly id: number;
  readonly body: Uint8Array | { readonly data: readonly number[] };
}

const WORD_BYTES = 4;

const job = parseJob();
if (job.listens) {
  const copy = new Payload(job.size);
  process.on('message', ({ id, body }: Numbered) => {
    copy.bytes.set('data' in body ? body.data : body);
    process.send?.({ id, body: Buffer.from(copy.bytes.slice(-WORD_BYTES)) });
  });
} else {
  const { fork } = job.name.startsWith('ukshm-') ? ukshm : node;
  const args = ['listen', ...process.argv.slice(3)];
  const serialization = job.name.includes('json') ? 'json' : 'advanced';
  const child = fork(fileURLToPath(import.meta.url), args, { serialization });
  const waiting = new Waiting();
  child.on('message', ({ id, body }: Numbered) => {
    waiting.onReply(id, 'data' in body ? Uint8Array.from(body.data) : body);
  });
  const ask = (bytes: Uint8Array): Promise<Uint8Array> =>
    waiting.ask((id) => child.send({ id, body: Buffer.from(bytes.buffer) }));
  await runRequests(job, ask, WORD_BYTES);
  child.disconnect();
}
