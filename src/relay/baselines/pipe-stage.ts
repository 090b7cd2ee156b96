// One of the three processes of the comparison over pipes. Standard input and output are the pipes;
// descriptor 3 takes reports; the reader begins at the first byte on its standard input.
import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  createWriteStream,
  fsyncSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { nowNs, type Role } from '../control.js';
import { type Measured, Meter } from '../meter.js';
import type { ComparisonJob, StageReport } from './comparison.js';
import type { PipeStyle } from './pipes.js';

const REPORTS = 3;
const role = process.argv[2] as Role;
const job = JSON.parse(process.env.UKSHM_STAGE ?? '{}') as ComparisonJob & { style: PipeStyle };
const meter = new Meter();
const hash = job.hash && role === 'examiner' ? createHash('sha256') : undefined;

report({ kind: 'ready', role });
if (role === 'reader') readSync(0, Buffer.alloc(1));
const output = role === 'writer' ? openSync(job.output, 'w') : undefined;
if (role === 'reader') meter.start();
const measured = await (job.style === 'blocking' ? byBlockingCalls() : byStreams());
report({
  kind: 'finished',
  role,
  ...measured,
  sha256: hash?.digest('hex'),
  fsyncSeconds: output === undefined ? undefined : sync(output),
});

async function byStreams(): Promise<Measured> {
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done): void {
      meter.start();
      hash?.update(chunk);
      meter.add(chunk.length);
      done(null, chunk);
    },
  });
  const highWaterMark = job.chunkBytes;
  if (role === 'reader') {
    const source = createReadStream(job.input, { highWaterMark });
    await pipeline(source, process.stdout);
    meter.add(source.bytesRead);
  } else if (role === 'examiner') {
    await pipeline(process.stdin, counted, process.stdout);
  } else {
    const fd = output as number;
    const target = createWriteStream('', { fd, highWaterMark, autoClose: false });
    process.stdin.once('data', () => meter.start());
    await pipeline(process.stdin, target);
    meter.add(target.bytesWritten);
  }
  return meter.stop();
}

async function byBlockingCalls(): Promise<Measured> {
  const buffer = Buffer.allocUnsafeSlow(job.chunkBytes);
  const source = role === 'reader' ? openSync(job.input, 'r') : 0;
  const target = output ?? 1;
  for (;;) {
    const lengthBytes = readSync(source, buffer, 0, buffer.length, null);
    if (lengthBytes === 0) return meter.stop();
    meter.start();
    hash?.update(buffer.subarray(0, lengthBytes));
    let done = 0;
    while (done < lengthBytes) done += writeSync(target, buffer, done, lengthBytes - done);
    meter.add(lengthBytes);
  }
}

function sync(file: number): number {
  const before = nowNs();
  fsyncSync(file);
  closeSync(file);
  return (nowNs() - before) / 1e9;
}

function report(what: StageReport): void {
  writeSync(REPORTS, `${JSON.stringify(what)}\n`);
}
