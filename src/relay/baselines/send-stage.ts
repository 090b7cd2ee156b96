// One of the three processes of the comparison over child.send. Chunks travel as Buffers, which
// `advanced` serialization takes as they are; an empty one ends the file. Of the chunks that were
// sent, at most WINDOW_COUNT are not yet written: the writer's numbers come back the same way,
// since Node reads an IPC channel as fast as it can and would otherwise pile them up.
import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { nowNs, type Role } from '../control.js';
import { Meter } from '../meter.js';
import type { ComparisonJob, StageReport } from './comparison.js';

const WINDOW_COUNT = 16;

const role = process.argv[2] as Role;
const job = JSON.parse(process.argv[3]) as ComparisonJob;
const meter = new Meter();

if (role === 'examiner') examine();
else if (role === 'reader') read();
else write();

function read(): void {
  const input = openSync(job.input, 'r');
  let open = WINDOW_COUNT;
  let running = false;
  const pump = async (): Promise<void> => {
    if (running) return;
    running = true;
    while (open > 0) {
      open -= 1;
      const chunk = Buffer.allocUnsafeSlow(job.chunkBytes);
      const lengthBytes = readSync(input, chunk, 0, chunk.length, null);
      await send(process, chunk.subarray(0, lengthBytes));
      if (lengthBytes === 0) {
        report({ kind: 'finished', role, ...meter.stop() });
        return;
      }
      meter.add(lengthBytes);
    }
    running = false;
  };
  process.on('message', (written: number | 'leave') => {
    if (written === 'leave') return process.disconnect();
    open += written;
    meter.start();
    void pump();
  });
  report({ kind: 'ready', role });
}

function examine(): void {
  const hash = job.hash ? createHash('sha256') : undefined;
  const script = fileURLToPath(import.meta.url);
  const [reader, writer] = (['reader', 'writer'] as const).map((name) =>
    fork(script, [name, process.argv[3]], { serialization: 'advanced' }),
  );
  const waiting = new Set<Role>(['reader', 'writer']);
  const running = new Set<Role>(['reader', 'writer']);
  const onReport = (what: StageReport): void => {
    if (what.kind === 'ready') waiting.delete(what.role);
    if (what.kind === 'ready' && waiting.size === 0) void send(reader, 0);
    if (what.kind !== 'finished') return;
    report(what);
    running.delete(what.role);
    if (running.size > 0) return;
    for (const child of [reader, writer]) void send(child, 'leave');
    process.disconnect();
  };
  reader.on('message', (chunk: Buffer | StageReport) => {
    if (!(chunk instanceof Uint8Array)) return onReport(chunk);
    if (chunk.length > 0) {
      meter.start();
      hash?.update(chunk);
      meter.add(chunk.length);
    } else {
      report({ kind: 'finished', role, ...meter.stop(), sha256: hash?.digest('hex') });
    }
    void send(writer, chunk);
  });
  writer.on('message', (written: number | StageReport) => {
    if (typeof written === 'number') void send(reader, written);
    else onReport(written);
  });
  for (const child of [reader, writer]) {
    child.once('exit', (status) => {
      if (status !== 0) process.exit(1);
    });
  }
}

function write(): void {
  const output = openSync(job.output, 'w');
  process.on('message', (chunk: Buffer | 'leave') => {
    if (chunk === 'leave') return process.disconnect();
    if (chunk.length === 0) {
      const measured = meter.stop();
      const before = nowNs();
      fsyncSync(output);
      closeSync(output);
      const fsyncSeconds = (nowNs() - before) / 1e9;
      return report({ kind: 'finished', role, ...measured, fsyncSeconds });
    }
    meter.start();
    let done = 0;
    while (done < chunk.length) done += writeSync(output, chunk, done);
    meter.add(chunk.length);
    void send(process, 1);
  });
  report({ kind: 'ready', role });
}

function send(to: NodeJS.Process | ChildProcess, what: Buffer | number | string): Promise<void> {
  return new Promise((resolve) => {
    // A closed channel means that the others ended; each is told by its own `disconnect`.
    to.send?.(what, undefined, undefined, () => resolve());
  });
}

function report(what: StageReport): void {
  process.send?.(what);
}
