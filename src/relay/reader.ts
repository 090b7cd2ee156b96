// The first of the three: reads the input straight into chunks of its own region and lends them to
// the examiner. The writer maps the same region through this process's listener.
import {
  closeSync,
  fstatSync,
  openSync,
  open as openWithCallback,
  readSync,
  read as readWithCallback,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Channel, type Loan, listen } from '../index.js';
import { type Control, runPart } from './child.js';
import {
  type EndOfFile,
  type FinishedReport,
  type Job,
  MESSAGE_DATA,
  MESSAGE_END,
  MESSAGE_GREETING,
} from './control.js';
import { Meter } from './meter.js';
import { meetNeighbour, unlessLost } from './neighbour.js';
import { frameAt } from './page-frame.js';

/** What a pipe holds by default: a read from one returns no more at a time. */
const PIPE_BYTES = 65536;
const STDIN = 0;
/** The memory's one user is the examiner; its size is what the user asked for. */
const BYTES_PER_USER_MAX = 2 ** 31;

const openLater = promisify(openWithCallback);
const readLater = promisify(readWithCallback);
const meter = new Meter();

runPart({
  passed: () => meter.bytes,
  async run(job: Job, control: Control): Promise<FinishedReport> {
    // In Node's pool: a FIFO to which nobody writes yet keeps its opener waiting.
    const input = await openInput(job.input);
    const listener = await listen(job.readerName, {
      access: { pids: [job.pids.examiner, job.pids.writer] },
      // One chunk more than may be in flight, and two at least: chunks of one size leave no gaps.
      arenaBytes: Math.max(job.inFlightBytes, 2 * job.chunkBytes) + job.chunkBytes,
      maxBytesPerUser: BYTES_PER_USER_MAX,
      inFlightBytes: job.inFlightBytes,
      spinMicros: job.spinMicros,
    });
    const channel = await meetNeighbour(() => listener.accept(), 'examiner');
    return unlessLost([[channel, 'examiner']], async () => {
      await channel.send(new Uint8Array(0), { type: MESSAGE_GREETING });
      control.ready();
      await control.go;
      return sendFile(input, channel, job, control);
    });
  },
});

async function sendFile(
  input: Input,
  channel: Channel,
  job: Job,
  control: Control,
): Promise<FinishedReport> {
  const chunkBytes = input.regular ? job.chunkBytes : Math.min(job.chunkBytes, PIPE_BYTES);
  meter.start();
  for (;;) {
    const options = { type: MESSAGE_DATA, id: meter.messages };
    const loan = channel.tryLoan(chunkBytes, options) ?? (await channel.loan(chunkBytes, options));
    const lengthBytes = await readInto(input, loan);
    if (lengthBytes === 0) {
      loan.discard();
      break;
    }
    if (job.reportFrame && meter.messages === 0) {
      control.tell({ kind: 'frame', ...frameAt(loan.bytes) });
    }
    loan.send({ lengthBytes });
    meter.add(lengthBytes);
  }
  const end: EndOfFile = { bytes: meter.bytes, messages: meter.messages };
  const measured = meter.stop();
  await channel.send(Buffer.from(JSON.stringify(end)), { type: MESSAGE_END });
  closeSync(input.file);
  return measured;
}

interface Input {
  readonly file: number;
  /** A regular file answers at once; anything else may keep its reader waiting. */
  readonly regular: boolean;
}

async function openInput(path: string): Promise<Input> {
  const file = path === '-' ? openStdin() : await openLater(path, 'r');
  return { file, regular: fstatSync(file).isFile() };
}

/** A description of our own where there is one: the shared one may be non-blocking (EAGAIN). */
function openStdin(): number {
  if (!fstatSync(STDIN).isFIFO()) return STDIN;
  try {
    return openSync('/proc/self/fd/0', 'r');
  } catch {
    // The pipe belongs to another user.
    return STDIN;
  }
}

/** Reads into the loan's own memory; 0 at the end of the input. */
async function readInto(input: Input, loan: Loan): Promise<number> {
  // A regular file is read on this thread: the hand-over to Node's pool costs as much as the read.
  if (input.regular) return readSync(input.file, loan.bytes, 0, loan.lengthBytes, null);
  for (;;) {
    try {
      const { bytesRead } = await readLater(input.file, loan.bytes, 0, loan.lengthBytes, null);
      return bytesRead;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      // Only a non-blocking socket as standard input comes here.
      await sleep(1);
    }
  }
}
