// The rows of `ukshm relay`: the command measures itself and its rivals in turn and prints JSON.
import { execFile } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { DemonstrationReport } from '../src/relay/demonstration.js';
import type { Row } from './report.js';
import { scratchPath } from './runner.js';
import { root } from './subjects.js';

type Way = DemonstrationReport['rows'][number]['way'];

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
}

export function relayPlans(quick: boolean): RelayPlan[] {
  const large = { name: 'relay 2 GiB', bytes: 2 * 2 ** 30, hash: true };
  return [
    { name: 'relay 100 MB', hash: true },
    { name: 'relay 100 MB, no hash', hash: false },
    ...(quick ? [] : [large]),
  ];
}

export async function measureRelay(plan: RelayPlan): Promise<Row[]> {
  const input = plan.bytes === undefined ? process.execPath : makeFile(plan.bytes);
  try {
    const args = ['relay', input, '--json', ...(plan.hash ? [] : ['--no-hash'])];
    const report = JSON.parse(await ukshm(args)) as DemonstrationReport;
    return report.rows.map((row) => toRow(plan.name, row, statSync(input).size));
  } catch (error) {
    const none = { value: null, p50: null, p99: null, p999: null, max: null, n: 0, spun: false };
    const note = `failed: ${(error as Error).message.split('\n')[0]}`;
    return [{ name: plan.name, subject: 'ukshm', unit: 'GB/s', ...none, note }];
  } finally {
    if (plan.bytes !== undefined) rmSync(input, { force: true });
  }
}

function toRow(name: string, row: DemonstrationReport['rows'][number], size: number): Row {
  const { gigabytesPerSecond, runs, way, cpuSeconds, copiedUserBytes, copiedKernelBytes } = row;
  const base = { name, subject: NAMES[way], unit: 'GB/s', spun: false, n: runs.length };
  const copies = `${copiedUserBytes / size} user and ${copiedKernelBytes / size} kernel copies`;
  const note = `${cpuSeconds.toFixed(2)} CPU s; ${copies}`;
  const value = gigabytesPerSecond;
  return { ...base, value, p50: value, p99: null, p999: null, max: Math.max(...runs), note };
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
