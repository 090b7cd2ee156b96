// The last of the three: writes each message to the output, out of the reader's pages. The kernel
// copies them into its page cache, or the disk takes them as they are; no code of this process
// touches them.
import { open as openWithCallback, unlinkSync, write as writeWithCallback } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Channel, listen, type Message } from '../index.js';
import { type Control, NeighbourLost, runPart } from './child.js';
import {
  type EndOfFile,
  type FinishedReport,
  type Job,
  MESSAGE_END,
  MESSAGE_GREETING,
  nowNs,
  type OutputFile,
} from './control.js';
import { FileWriter } from './file-writer.js';
import { Meter } from './meter.js';
import { meetNeighbour, unlessLost } from './neighbour.js';
import { frameAt } from './page-frame.js';

const STDOUT = 1;

const openLater = promisify(openWithCallback);
const writeLater = promisify(writeWithCallback);
const meter = new Meter();
let temporary: string | undefined;

runPart({
  passed: () => meter.bytes,
  undo(): void {
    if (temporary !== undefined) unlinkIfThere(temporary);
  },
  async run(job: Job, control: Control): Promise<FinishedReport> {
    const output = await openOutput(job.output, job.direct);
    const listener = await listen(job.writerName, {
      access: { pids: [job.pids.examiner] },
      // What comes here lies in the reader's memory.
      arenaBytes: 0,
      spinMicros: job.spinMicros,
    });
    const channel = await meetNeighbour(() => listener.accept(), 'examiner');
    return unlessLost([[channel, 'examiner']], () => writeFile(output, channel, job, control));
  },
});

async function writeFile(
  output: Output | undefined,
  channel: Channel,
  job: Job,
  control: Control,
): Promise<FinishedReport> {
  let toldNs = nowNs();
  for await (const message of channel) {
    if (message.type === MESSAGE_END) {
      if (output instanceof FileWriter) await output.drain();
      checkComplete(message);
      return finish(output);
    }
    if (message.type === MESSAGE_GREETING) {
      message.release();
      control.ready();
      continue;
    }
    meter.start();
    if (job.reportFrame && meter.messages === 0) {
      control.tell({ kind: 'frame', ...frameAt(message.bytes) });
    }
    await write(output, message);
    meter.add(message.lengthBytes);
    if (nowNs() - toldNs >= job.progressMs * 1e6) {
      toldNs = nowNs();
      control.tell({ kind: 'progress', bytes: meter.bytes });
    }
  }
  throw new NeighbourLost('examiner', 'the messages ended before the file did');
}

async function write(output: Output | undefined, message: Message): Promise<void> {
  if (output instanceof FileWriter) return output.take(message.bytes, () => message.release());
  if (output !== undefined) await writeAll(output, message.bytes);
  message.release();
}

function checkComplete(message: Message): void {
  const end = message.json() as EndOfFile;
  message.release();
  if (end.bytes === meter.bytes && end.messages === meter.messages) return;
  throw new Error(
    `${meter.bytes} bytes in ${meter.messages} messages arrived, ` +
      `but the reader sent ${end.bytes} in ${end.messages}`,
  );
}

async function finish(output: Output | undefined): Promise<FinishedReport> {
  const measured = meter.stop();
  if (!(output instanceof FileWriter)) return measured;
  const before = nowNs();
  await output.finish();
  const fsyncSeconds = (nowNs() - before) / 1e9;
  return { ...measured, fsyncSeconds, directBytes: output.directBytes };
}

/** A new file; or the descriptor of what is no regular file. */
type Output = FileWriter | number;

async function openOutput(plan: OutputFile, direct: boolean): Promise<Output | undefined> {
  if (plan.kind === 'none') return undefined;
  if (plan.kind === 'file') {
    const file = new FileWriter(plan.temporary, plan.mode, direct);
    temporary = plan.temporary;
    return file;
  }
  // In Node's pool: a FIFO that nobody reads yet keeps its opener waiting.
  return plan.kind === 'stdout' ? STDOUT : await openLater(plan.path, 'w');
}

/** Writes everything, straight from the reader's pages. */
async function writeAll(output: number, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    try {
      // In the pool: a pipe may block, and a process that is blocked could not notice that the
      // others are gone.
      done += (await writeLater(output, bytes, done, bytes.length - done)).bytesWritten;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      // Only where whoever gave us standard output made it non-blocking.
      await sleep(1);
    }
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It has its final name already, or somebody was faster.
  }
}
