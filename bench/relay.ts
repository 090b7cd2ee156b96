// The rows of `ukshm relay`: the command measures itself and its rivals in turn and prints JSON.
import { execFile } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { DemonstrationReport } from '../src/relay/demonstration.js';
import type { Row } from './report.js';
import { scratchPath } from './runner.js';
import { root } from './subjects.js';

type WayReport = DemonstrationReport['rows'][number];
type Way = WayReport['way'];

const NAMES: Readonly<Record<Way, string>> = {
  ukshm: 'ukshm',
  streams: 'pipes, node:stream',
  send: 'child.send',
  blocking: 'pipes, blocking calls',
};

export interface RelayPlan {
  readonly name: string;
  /** `undefined`: Node's own executable, some 100 MB. */
  readonly bytes?: number;
  readonly hash: boolean;
  /** How often the command is run; for a file that takes long it goes through each way once. */
  readonly times: number;
}

export function relayPlans(quick: boolean): RelayPlan[] {
  const large = { name: 'relay 2 GiB', bytes: 2 * 2 ** 30, hash: true, times: 3 };
  return [
    { name: 'relay 100 MB', hash: true, times: 1 },
    { name: 'relay 100 MB, no hash', hash: false, times: 1 },
    ...(quick ? [] : [large]),
  ];
}

export async function measureRelay(plan: RelayPlan): Promise<Row[]> {
  const input = plan.bytes === undefined ? process.execPath : makeFile(plan.bytes);
  try {
    const args = ['relay', input, '--json', ...(plan.hash ? [] : ['--no-hash'])];
    const reports: DemonstrationReport[] = [];
    while (reports.length < plan.times) reports.push(JSON.parse(await ukshm(args)));
    const first = reports[0] as DemonstrationReport;
    return first.rows.map(({ way }) => {
      const same = reports.flatMap(({ rows }) => rows.filter((row) => row.way === way));
      return toRow(plan.name, same, statSync(input).size);
    });
  } catch (error) {
    const none = { value: null, p50: null, p99: null, p999: null, max: null, n: 0, spun: false };
    const note = `failed: ${(error as Error).message.split('\n')[0]}`;
    return [{ name: plan.name, subject: 'ukshm', unit: 'GB/s', ...none, note }];
  } finally {
    if (plan.bytes !== undefined) rmSync(input, { force: true });
  }
}

/** One row of the same way's reports: the median over all their runs. */
function toRow(name: string, reports: readonly WayReport[], size: number): Row {
  const runs = reports.flatMap((report) => report.runs).sort((a, b) => a - b);
  const { way, copiedUserBytes, copiedKernelBytes } = reports[0] as WayReport;
  const cpuSeconds = reports.map((report) => report.cpuSeconds).sort((a, b) => a - b);
  const base = { name, subject: NAMES[way], unit: 'GB/s', spun: false, n: runs.length };
  const copies = `${copiedUserBytes / size} user and ${copiedKernelBytes / size} kernel copies`;
  const note = `${middle(cpuSeconds).toFixed(2)} CPU s; ${copies}`;
  const value = middle(runs);
  return { ...base, value, p50: value, p99: null, p999: null, max: Math.max(...runs), note };
}

function middle(sorted: readonly number[]): number {
  return sorted[sorted.length >> 1] as number;
}

/** In memory, like the output: a disk would be measured otherwise. */
function makeFile(bytes: number): string {
  const path = scratchPath('input');
  const file = openSync(path, 'w');
  try {
    ftruncateSync(file, bytes);
    const block = new Uint8Array(1 << 20).map((_, i) => (i * 2654435761) >>> 24);
    for (let at = 0; at < bytes; at += block.length) writeSync(file, block, 0, block.length, at);
  } finally {
    closeSync(file);
  }
  return path;
}

function ukshm(args: string[]): Promise<string> {
  const main = join(root, 'dist', 'src', 'cli', 'main.js');
  const env = { ...process.env, TMPDIR: scratchPath('') };
  const options = { env, timeout: 180_000, killSignal: 'SIGKILL', maxBuffer: 1 << 20 } as const;
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [main, ...args], options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(stderr.trim().split('\n').pop() || error.message));
    });
  });
}
