// Node's BroadcastChannel: the readers are worker threads of the publisher's process. It has no
// back-pressure, so readers grant half a window at a time.

import { fileURLToPath } from 'node:url';
import { BroadcastChannel, parentPort, Worker } from 'node:worker_threads';
import { END_WORD, MESSAGES_MIN, Payload, parseJob, sayRate, wrongWord } from './common.js';
import { readerCount } from './fan-out.js';

/** Messages under way: some 4 MiB, at least 2. */
function windowFor(size: number): number {
  return Math.max(2, Math.min(1024, (4 << 20) / size) & ~1);
}

function read(): void {
  const job = parseJob(process.argv.slice(2));
  const channel = new BroadcastChannel(job.address);
  const copy = new Payload(job.size);
  const grantEvery = windowFor(job.size) >> 1;
  let expected = 0;
  channel.onmessage = (event: unknown): void => {
    copy.bytes.set((event as { data: Uint8Array }).data);
    if (copy.word === END_WORD) {
      expected = 0;
      parentPort?.postMessage('ended');
      return;
    }
    if (copy.word !== expected++) throw wrongWord(expected - 1, copy.word);
    if (expected % grantEvery === 0) parentPort?.postMessage('grant');
  };
  parentPort?.once('message', () => channel.close());
  parentPort?.postMessage('ready');
}

async function publish(): Promise<void> {
  const job = parseJob();
  const channel = new BroadcastChannel(job.address);
  const script = fileURLToPath(import.meta.url);
  const argv = ['listen', ...process.argv.slice(3)];
  const workers = Array.from({ length: readerCount(job) }, () => new Worker(script, { argv }));
  const heard = { ready: 0, ended: 0, grant: 0 };
  let wake = (): void => {};
  for (const worker of workers) {
    worker.on('message', (word: keyof typeof heard) => {
      heard[word]++;
      wake();
    });
  }
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  await until(() => heard.ready === workers.length);
  const source = new Payload(job.size);
  const window = windowFor(job.size);
  for (const [phase, forMs] of [job.warmMs, job.runMs].entries()) {
    const start = performance.now();
    let sequence = 0;
    heard.grant = heard.ended = 0;
    while (sequence < MESSAGES_MIN || performance.now() - start < forMs) {
      // Each reader grants half a window: what the slowest has granted is at least the mean.
      await until(() => sequence - (heard.grant * window) / 2 / workers.length < window);
      source.word = sequence++;
      channel.postMessage(source.bytes);
    }
    source.word = END_WORD;
    channel.postMessage(source.bytes);
    await until(() => heard.ended === workers.length);
    if (phase === 1) sayRate(sequence, (performance.now() - start) / 1e3);
  }
  for (const worker of workers) worker.postMessage('close');
  channel.close();
}

if (parentPort === null) await publish();
else read();
