// `ukshm relay <input> [<output>]`: the job with an output; without one, the demonstration.
import { statSync } from 'node:fs';
import { Argument, type Command, InvalidArgumentError } from 'commander';
import { demonstrate, digestOf, ROUNDS_DEFAULT } from '../relay/demonstration.js';
import { RelayError } from '../relay/failure.js';
import {
  CHUNK_BYTES_DEFAULT,
  IN_FLIGHT_BYTES_DEFAULT,
  type RelayOptions,
  type RelayReport,
  startRelay,
} from '../relay/supervisor.js';
import { UsageError } from './failure.js';
import { print, printJson } from './print.js';
import { Progress } from './progress.js';
import { shower } from './relay-show.js';
import { interruptible } from './signals.js';
import { formatBytes, formatMemory, formatMs } from './text.js';

const CHUNK_BYTES_MIN = 512;
const IN_FLIGHT_BYTES_MAX = 2 ** 28;

const HELP = `
Three processes: the reader reads the input straight into chunks of its own shared memory, the
examiner hashes them where they lie, the writer writes them to the output out of the reader's pages.
No byte is copied in user space on the way.

The output appears under its name only when it is complete. Without an output, ukshm shows what it
does: the processes, the same job over pipes and child.send, and what a killed process leaves.

Examples:
  ukshm relay disk.img copy.img
  ukshm relay /usr/bin/node
  tar c folder | ukshm relay - folder.tar
  ukshm relay disk.img --examine ./count-zeros.mjs copy.img

A module for --examine exports a function, which may be asynchronous, and a last word if it likes:
  export default ({ bytes, offset, index }) => { … }
  export const result = () => ({ … });

Exit status: 0 done, 1 failed, 2 wrong arguments, 128 and its number after a signal.`;

interface Flags {
  readonly examine?: string;
  readonly hash: boolean;
  readonly direct?: boolean;
  readonly verify?: true;
  readonly json?: true;
  readonly chunkBytes: number;
  readonly inFlight: number;
  readonly rounds: number;
}

export function addRelay(program: Command): void {
  program
    .command('relay')
    .description('move a file through three processes that share memory')
    .addArgument(new Argument('<input>', "a file or FIFO, or '-' for standard input"))
    .addArgument(new Argument('[output]', "a file, or '-' for standard output"))
    .option('--examine <module>', 'show each message to the default export of this module')
    .option('--no-hash', 'no SHA-256')
    .option('--direct', 'write past the page cache (O_DIRECT); from 1 GiB on it is the default')
    .option('--no-direct', 'write through the page cache')
    .option('--verify', 'read the output again and compare its digest')
    .option('--chunk-bytes <size>', 'the size of a message', size, CHUNK_BYTES_DEFAULT)
    .option('--in-flight <size>', 'read, but not yet written', size, IN_FLIGHT_BYTES_DEFAULT)
    .option('--rounds <count>', 'runs of each way, without an output', count, ROUNDS_DEFAULT)
    .option('--json', 'report in JSON')
    .addHelpText('after', HELP)
    .action(relay);
}

/** `65536`, `64K`, `64KiB`, `1M`, `1 MiB`: powers of 1024, as memory has them. */
function size(text: string): number {
  const match = /^(\d+)\s*(?:([KMG])(?:i?B)?)?$/i.exec(text);
  if (match === null) throw new InvalidArgumentError('give a size such as 65536, 64K or 1M.');
  return Number(match[1]) * 1024 ** ' KMG'.indexOf((match[2] ?? ' ').toUpperCase());
}

function count(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('give a count from 1 to 9999.');
  return Number(text);
}

async function relay(input: string, output: string | undefined, flags: Flags): Promise<void> {
  check(input, output, flags);
  const options: RelayOptions = {
    input,
    output,
    examine: flags.examine,
    hash: flags.hash,
    direct: flags.direct,
    chunkBytes: flags.chunkBytes,
    inFlightBytes: Math.max(flags.inFlight, flags.chunkBytes),
  };
  await interruptible(async (signal) => {
    if (output === undefined) await demonstration({ ...options, signal }, flags);
    else await job({ ...options, signal }, flags);
  });
}

function check(input: string, output: string | undefined, flags: Flags): void {
  if (flags.chunkBytes < CHUNK_BYTES_MIN || flags.inFlight < CHUNK_BYTES_MIN) {
    throw new UsageError(`--chunk-bytes and --in-flight must be at least ${CHUNK_BYTES_MIN}`);
  }
  if (Math.max(flags.chunkBytes, flags.inFlight) > IN_FLIGHT_BYTES_MAX) {
    const most = formatMemory(IN_FLIGHT_BYTES_MAX);
    throw new UsageError(`--chunk-bytes and --in-flight may be at most ${most}`);
  }
  if (output === '-' && flags.json) {
    throw new UsageError("--json and the output '-' both want standard output; give a path");
  }
  if (flags.verify && (output === undefined || output === '-' || !flags.hash)) {
    throw new UsageError('--verify needs an output with a name, and the hash');
  }
  if (output === undefined && (input === '-' || isNoFile(input))) {
    throw new UsageError(
      'without an output the input is read several times, so it must be a regular file; ' +
        "give an output: a path, '-' or /dev/null",
    );
  }
}

function isNoFile(path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  return there !== undefined && !there.isFile() && !there.isDirectory();
}

async function job(options: RelayOptions & { signal: AbortSignal }, flags: Flags): Promise<void> {
  const progress = new Progress();
  let report: RelayReport;
  try {
    const onProgress = (bytes: number, total?: number): void => progress.update(bytes, total);
    report = await startRelay({ ...options, onProgress }).done;
  } finally {
    progress.clear();
  }
  if (flags.verify) await verify(options, report);
  if (flags.json) printJson(forPrograms(options, report, flags));
  else if (options.output === '-') process.stderr.write(`${summary(options, report, flags)}\n`);
  else print(summary(options, report, flags));
}

async function verify(options: RelayOptions, report: RelayReport): Promise<void> {
  const written = await digestOf(options.output ?? '', options.signal);
  if (written === report.sha256) return;
  throw new RelayError(
    'ERR_UKSHM_RELAY',
    `${options.output} was read back as ${written}, but the examiner saw ${report.sha256}`,
  );
}

function summary(options: RelayOptions, report: RelayReport, flags: Flags): string {
  const { bytes, seconds, cpuSeconds, fsyncSeconds, sha256, examined } = report;
  const rate = seconds > 0 && bytes > 0 ? `, ${(bytes / seconds / 1e9).toFixed(2)} GB/s` : '';
  const synced = fsyncSeconds > 0 ? `, then ${formatMs(fsyncSeconds * 1000)} to the disk` : '';
  const lines = [
    `${formatBytes(bytes)} in ${formatMs(seconds * 1000)}${rate}, ` +
      `${cpuSeconds.toFixed(2)} s of CPU time${synced}`,
  ];
  if (sha256 !== undefined) {
    lines.push(`sha256 ${sha256}${flags.verify ? ', and the output read back is the same' : ''}`);
  }
  if (examined !== undefined) lines.push(`${options.examine}: ${JSON.stringify(examined)}`);
  return lines.join('\n');
}

function forPrograms(options: RelayOptions, report: RelayReport, flags: Flags): unknown {
  const { frames: _, ...rest } = report;
  const { input, output } = options;
  const gigabytesPerSecond = report.seconds > 0 ? report.bytes / report.seconds / 1e9 : 0;
  const verified = flags.verify === true;
  return { input, output, ...rest, gigabytesPerSecond, verified };
}

async function demonstration(
  options: RelayOptions & { signal: AbortSignal },
  flags: Flags,
): Promise<void> {
  if (flags.json) return printJson(await demonstrate(options, {}, flags.rounds));
  const progress = new Progress();
  try {
    await demonstrate(options, shower(options, progress), flags.rounds);
  } finally {
    progress.clear();
  }
}
