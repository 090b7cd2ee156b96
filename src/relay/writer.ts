// The last of the three: writes each message to the output, out of the reader's pages. The kernel
// copies them into its page cache; no code of this process touches them.
import {
  closeSync,
  fchmodSync,
  fstatSync,
  fsync as fsyncWithCallback,
  openSync,
  open as openWithCallback,
  unlinkSync,
  writeSync,
  write as writeWithCallback,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Channel, listen, type Message } from '../index.js';
import { addressOf } from '../sys/memory.js';
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
import { Meter } from './meter.js';
import { meetNeighbour, unlessLost } from './neighbour.js';
import { frameAt } from './page-frame.js';

const STDOUT = 1;

const openLater = promisify(openWithCallback);
const writeLater = promisify(writeWithCallback);
const fsyncLater = promisify(fsyncWithCallback);
const meter = new Meter();
let temporary: string | undefined;

runPart({
  passed: () => meter.bytes,
  undo(): void {
    if (temporary !== undefined) unlinkIfThere(temporary);
  },
  async run(job: Job, control: Control): Promise<FinishedReport> {
    const output = await openOutput(job.output);
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
      checkComplete(message);
      return finish(output);
    }
    if (message.type === MESSAGE_GREETING) {
      message.release();
      control.ready();
      continue;
    }
    meter.start();
    if (output !== undefined) await writeAll(output, message.bytes);
    if (job.reportFrame && meter.messages === 0) {
      control.tell({ kind: 'frame', ...frameAt(addressOf(message.bytes)) });
    }
    meter.add(message.lengthBytes);
    message.release();
    if (nowNs() - toldNs >= job.progressMs * 1e6) {
      toldNs = nowNs();
      control.tell({ kind: 'progress', bytes: meter.bytes });
    }
  }
  throw new NeighbourLost('examiner', 'the messages ended before the file did');
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
  if (output?.temporary !== true) return measured;
  const before = nowNs();
  await fsyncLater(output.file);
  closeSync(output.file);
  return { ...measured, fsyncSeconds: (nowNs() - before) / 1e9 };
}

interface Output {
  readonly file: number;
  readonly regular: boolean;
  /** A file that gets its name when it is complete, and must be on the disk by then. */
  readonly temporary: boolean;
}

async function openOutput(plan: OutputFile): Promise<Output | undefined> {
  if (plan.kind === 'none') return undefined;
  if (plan.kind === 'file') {
    // O_EXCL: nobody else's file, nor a symbolic link that somebody put there.
    const file = openSync(plan.temporary, 'wx', 0o666);
    temporary = plan.temporary;
    if (plan.mode !== undefined) fchmodSync(file, plan.mode);
    return { file, regular: true, temporary: true };
  }
  // In Node's pool: a FIFO that nobody reads yet keeps its opener waiting.
  const file = plan.kind === 'stdout' ? STDOUT : await openLater(plan.path, 'w');
  return { file, regular: fstatSync(file).isFile(), temporary: false };
}

/** Writes everything, straight from the reader's pages. */
async function writeAll(output: Output, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    try {
      // A regular file is written on this thread; a pipe may block, and a process that is blocked
      // could not notice that the others are gone.
      if (output.regular) done += writeSync(output.file, bytes, done, bytes.length - done);
      else done += (await writeLater(output.file, bytes, done, bytes.length - done)).bytesWritten;
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
