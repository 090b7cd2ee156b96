// Draws the demonstration of `ukshm relay <input>`, step by step, for someone who has read nothing.
import { existsSync, statSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import type { FrameReport, Role } from '../relay/control.js';
import type { Demonstration, Digests, Kill, Row, Way } from '../relay/demonstration.js';
import type { RelayOptions, RelayReport } from '../relay/supervisor.js';
import { print } from './print.js';
import type { Progress } from './progress.js';
import { formatBytes, formatMemory, formatMs, type Style, styleFor, table } from './text.js';

const NAMES: Readonly<Record<Way, string>> = {
  ukshm: 'ukshm',
  streams: 'pipes, node:stream',
  send: 'child.send, advanced',
  blocking: 'pipes, blocking calls',
};

const DIRECT_NOTE =
  "With ukshm the disk took the bytes out of the reader's pages (O_DIRECT, as from 1 GiB on).";

/** Prints each step when it is there, and what is being measured on the progress line. */
export function shower(options: RelayOptions, progress: Progress): Demonstration {
  const style = styleFor(process.stdout);
  const step = (text: string): void => {
    progress.clear();
    print(`${text}\n`);
  };
  return {
    onStart: (pids) => step(drawing(options, pids, style)),
    onFrames: (frames, report) => step(frameText(frames, report, style)),
    onRun: (way, round, rounds) => progress.text(`round ${round} of ${rounds}: ${NAMES[way]} …`),
    onTable: (rows) => step(tableText(options, rows, style)),
    onKill: (kill) => step(killText(kill, style)),
    onDigests: (digests) => {
      step(digestText(options, digests, style));
      step(nextText(options, style));
    },
  };
}

function drawing(
  { input, hash, examine, chunkBytes = 0 }: RelayOptions,
  pids: Readonly<Record<Role, number>>,
  style: Style,
): string {
  const length = formatBytes(statSync(input).size);
  const box = (role: Role): string => style.bold(`${role} ${pids[role]}`.padEnd(17));
  const look = [hash ? 'hashes them' : 'looks at them', 'where they lie'];
  if (examine !== undefined) look.splice(0, 2, 'shows them to', 'your module');
  const cells = (a: string, b: string, c: string, arrow: string): string =>
    `  ${a.padEnd(17)} ${arrow} ${b.padEnd(17)} ${arrow} ${c}`.trimEnd();
  return [
    `${style.bold(input)} (${length}) goes through three processes that share memory:`,
    '',
    `  ${box('reader')} ────▶ ${box('examiner')} ────▶ ${style.bold(`writer ${pids.writer}`)}`,
    cells('reads the file', look[0], 'writes them to', '     '),
    cells('into chunks', look[1], 'the output', '     '),
    '       │                       │                       │',
    `       └───────────── the reader's memory ─────────────┘`,
    '',
    `Each process maps that memory once. What travels along the arrows is where a chunk of`,
    `${formatMemory(chunkBytes)} lies, never its bytes.`,
  ].join('\n');
}

function frameText(
  frames: Partial<Record<Role, FrameReport>>,
  report: RelayReport,
  style: Style,
): string {
  const known = (['reader', 'examiner', 'writer'] as const).flatMap((role) => {
    const frame = frames[role];
    return frame === undefined ? [] : [{ role, ...frame }];
  });
  const hidden = known.find(({ frame }) => frame === undefined);
  if (known.length === 0) return 'No chunk: the file is empty.';
  if (known.length < 3 || hidden !== undefined) {
    const reason = hidden?.reason ?? 'a process did not report';
    return `Chunk 0 in physical memory: not shown, ${reason}.`;
  }
  const same = known.every(({ frame }) => frame === known[0].frame);
  const rows = known.map(({ role, address, frame }) => [
    `  ${role} ${report.pids[role]}`,
    `sees chunk 0 at 0x${address.toString(16)}`,
    `page frame 0x${(frame ?? 0).toString(16)}`,
  ]);
  const verdict = same
    ? style.good('The same page of physical memory in all three')
    : style.bad('NOT the same page of physical memory');
  return `${table(rows, ['left', 'left', 'left'])}\n${verdict} (/proc/PID/pagemap).`;
}

function tableText(options: RelayOptions, rows: readonly Row[], style: Style): string {
  const ukshm = rows.find(({ way }) => way === 'ukshm');
  if (ukshm === undefined) return '';
  const ratio = (figure: number, than: number): string =>
    than > 0 && figure > 0 ? `${(figure / than).toFixed(1)} ×` : '';
  const body = rows.map((row) => {
    const { way, gigabytesPerSecond: rate, cpuSeconds } = row;
    const own = way === 'ukshm';
    return [
      own ? style.bold(`  ${NAMES[way]}`) : `  ${NAMES[way]}`,
      own ? style.bold(rate.toFixed(2)) : rate.toFixed(2),
      own ? '' : ratio(ukshm.gigabytesPerSecond, rate),
      cpuSeconds.toFixed(2),
      own ? '' : ratio(cpuSeconds, ukshm.cpuSeconds),
      formatBytes(row.copiedUserBytes),
      formatBytes(row.copiedKernelBytes),
    ];
  });
  const faster = ['', 'GB/s', 'ukshm is', 'CPU s', 'against', 'copied by', 'copied by'];
  const second = ['', '', 'faster by', '', 'ukshm', 'programs', 'the kernel'];
  const align = ['left', 'right', 'right', 'right', 'right', 'right', 'right'] as const;
  const count = ukshm.runs.length;
  const what = options.hash === false ? 'without the hash' : 'with SHA-256';
  return [
    `The same job, ${what}, from the first byte to the last, on ${availableParallelism()} CPUs`,
    `(${count === 1 ? '1 run' : `the median of ${count} runs in turn`}; the time for fsync is not counted):`,
    '',
    table([faster, second, ...body], align),
    ...(ukshm.copiedKernelBytes < 1.5 * ukshm.bytes ? [DIRECT_NOTE] : []),
  ].join('\n');
}

function killText(kill: Kill | undefined, style: Style): string {
  if (kill === undefined) {
    return 'Killing the examiner: not shown, the file was through too soon; try a larger one.';
  }
  const { pids, noticedMs, goneMs, left } = kill;
  const at = `${formatBytes(kill.atBytes)} of ${formatBytes(kill.totalBytes)}`;
  const knew = (['reader', 'writer'] as const).map((role) => {
    const ms = noticedMs[role];
    return `the ${role} (${pids[role]}) ${ms === undefined ? 'was told' : `knew after ${formatMs(ms)}`}`;
  });
  const nothing = `${style.good('Left behind: nothing')} (no file, no name, no process).`;
  return [
    `The examiner (${kill.killed}) was killed at ${at}:`,
    `  ${knew.join(', ')};`,
    `  both stopped, the unfinished output was removed, and all was over after ${formatMs(goneMs)}.`,
    '  The one line that a user sees:',
    `    ${style.dim(`ukshm: ${kill.error}`)}`,
    left.length === 0 ? nothing : style.bad(`Left behind: ${left.join(', ')}`),
  ].join('\n');
}

function digestText({ hash }: RelayOptions, digests: Digests, style: Style): string {
  const which = hash === false ? 'input and output' : 'input, output, and all four ways';
  return digests.agree
    ? `${style.good('The digests agree')} (${which}):\n  sha256 ${digests.input}`
    : `${style.bad('The digests DIFFER')}: ${JSON.stringify(digests)}`;
}

function nextText({ input }: RelayOptions, style: Style): string {
  const name = commandName();
  const commands = [
    [`${name} relay ${input} ${join(tmpdir(), 'copy')}`, 'the job itself'],
    [`${name} relay --help`, 'your own examiner, pipes, JSON'],
    [`${name} doctor`, 'what this machine can do'],
  ];
  if (existsSync('bench/ipc.ts')) {
    commands.push(['npm run bench -- ipc --quick', 'the channels, measured against others']);
  }
  const rows = commands.map(([command, what]) => [`  ${command}`, style.dim(what)]);
  return `${style.bold('Try next')}\n${table(rows, ['left', 'left'])}`;
}

/** How this command line was called: by npx, by its name, or by Node in a clone. */
function commandName(): string {
  const called = process.argv[1];
  if (basename(called) === 'ukshm') {
    return called.includes('node_modules') ? 'npx ukshm' : 'ukshm';
  }
  return `node ${relative(process.cwd(), called)}`;
}
