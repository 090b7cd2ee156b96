// The middle of the three: hashes each message where it lies, in the reader's pages, shows it to
// the user's own examiner if there is one, and hands it on to the writer.
import { createHash, type Hash } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { type Channel, type ConnectOptions, connect, type Message } from '../index.js';
import { type Control, runPart } from './child.js';
import { type FinishedReport, type Job, MESSAGE_DATA, MESSAGE_END } from './control.js';
import { Meter } from './meter.js';
import { meetingDeadline, meetNeighbour, unlessLost } from './neighbour.js';
import { frameAt } from './page-frame.js';

/** What the user's examiner is shown. Its bytes are read-only memory: writing ends the process. */
export interface ExaminedMessage {
  /** In place; valid until the function returns, or its promise is settled. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  /** The number of this message, from 0. */
  readonly index: number;
  /** Where its bytes lie in the file. */
  readonly offset: number;
  text(): string;
  copy(): Uint8Array;
}

/** A module for `--examine`. */
export interface ExamineModule {
  /** Called with each message in turn; an error that it throws ends the relay. */
  default(message: ExaminedMessage): void | Promise<void>;
  /** Called at the end of the file; what it returns is shown, so it must go through JSON. */
  result?(): unknown;
}

const meter = new Meter();

runPart({
  passed: () => meter.bytes,
  async run(job: Job, control: Control): Promise<FinishedReport> {
    const module = job.examine === undefined ? undefined : await load(job.examine);
    const signal = meetingDeadline();
    const reader = await meetNeighbour(
      () =>
        connect(job.readerName, { ...meeting(job), signal, owner: { pids: [job.pids.reader] } }),
      'reader',
    );
    const writer = await meetNeighbour(
      () =>
        connect(job.writerName, { ...meeting(job), signal, owner: { pids: [job.pids.writer] } }),
      'writer',
    );
    control.ready();
    const ends = [
      [reader, 'reader'],
      [writer, 'writer'],
    ] as const;
    return unlessLost(ends, () => examineFile(reader, writer, { job, control, module }));
  },
});

/** Nothing is sent from here but what was received: no arena of its own is needed. */
function meeting(job: Job): ConnectOptions {
  return { wait: true, spinMicros: job.spinMicros, sendArenaBytes: 0 };
}

interface Surroundings {
  readonly job: Job;
  readonly control: Control;
  readonly module?: ExamineModule;
}

async function examineFile(
  reader: Channel,
  writer: Channel,
  { job, control, module }: Surroundings,
): Promise<FinishedReport> {
  const hash = job.hash ? createHash('sha256') : undefined;
  for await (const message of reader) {
    if (message.type !== MESSAGE_DATA) {
      const last = message.type === MESSAGE_END;
      await message.forward(writer);
      if (last) break;
      continue;
    }
    await examine(message, hash, module);
    if (job.reportFrame && meter.messages === 0) {
      control.tell({ kind: 'frame', ...frameAt(message.bytes) });
    }
    meter.add(message.lengthBytes);
    await message.forward(writer);
  }
  return { ...meter.stop(), sha256: hash?.digest('hex'), examined: await module?.result?.() };
}

async function examine(message: Message, hash?: Hash, module?: ExamineModule): Promise<void> {
  meter.start();
  hash?.update(message.bytes);
  if (module === undefined) return;
  await module.default({
    bytes: message.bytes,
    lengthBytes: message.lengthBytes,
    index: meter.messages,
    offset: meter.bytes,
    text: () => message.text(),
    copy: () => message.copy(),
  });
}

async function load(path: string): Promise<ExamineModule> {
  const module = (await import(pathToFileURL(path).href)) as Partial<ExamineModule>;
  if (typeof module.default !== 'function') {
    throw new TypeError(`${path} has no default export that is a function`);
  }
  return module as ExamineModule;
}
