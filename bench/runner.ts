// Runs one pair of programs at a time, each run in fresh processes, and ends what hangs.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { controlCommand, type Subject } from './subjects.js';

/** What a program of a pair prints: rates have `seconds`, round trips have the quantiles in ns. */
export interface Outcome {
  n: number;
  seconds?: number;
  mean?: number;
  p50?: number;
  p99?: number;
  p999?: number;
  max?: number;
  /** Nanoseconds of CPU of both processes over the measured time. */
  cpuNs?: number;
}

export interface Task {
  readonly job: string;
  readonly size: number;
  readonly warmMs: number;
  readonly runMs: number;
  /** Each side keeps to a CPU of its own. */
  readonly pinned?: boolean;
}

/** On tmpfs, because some peers map files there and a disk would write them back. */
const folder = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
/** Every file of every run starts with this; iceoryx2 uses the run's address as prefix too. */
const prefix = `ukshm-bench-${process.pid}-`;
const running = new Set<ChildProcess>();
let runs = 0;

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  removeLeftovers();
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));

/** A path that is removed at the end; '' is the folder itself. */
export function scratchPath(name: string): string {
  return name === '' ? folder : join(folder, `${prefix}${name}`);
}

function removeLeftovers(): void {
  for (const name of readdirSync(folder)) {
    if (name.startsWith(prefix)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** Whether two programs can be told to use two different CPUs. */
export const canPin: boolean =
  availableParallelism() > 1 && spawnSync('taskset', ['-c', '0,1', 'true']).status === 0;

class Program {
  readonly child: ChildProcess;
  readonly exited: Promise<void>;
  /** Rejects when the program fails; never resolves. */
  readonly failed: Promise<never>;
  readonly #lines: string[] = [];
  readonly #waiting = new Map<string, (line: string) => void>();
  #partial = '';
  #stderr = '';

  constructor(command: string[]) {
    this.child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
    running.add(this.child);
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#take(text));
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-2000);
    });
    this.child.stdin?.on('error', () => {});
    this.exited = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (status, signal) => {
        running.delete(this.child);
        if (status === 0) return resolve();
        const how = signal === null ? `status ${status}` : signal;
        reject(new Error(`${basename(command[0])} ended with ${how}: ${this.#complaint()}`));
      });
    });
    this.failed = new Promise((_, reject) => this.exited.catch(reject));
    this.failed.catch(() => {});
  }

  /** The line of standard error that says what is wrong. */
  #complaint(): string {
    const lines = this.#stderr.trim().split('\n');
    return lines.find((line) => /^\S*(error|exception)\b/i.test(line)) ?? lines[lines.length - 1];
  }

  #take(text: string): void {
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop() ?? '';
    this.#lines.push(...lines);
    for (const [start, resolve] of this.#waiting) {
      const line = lines.find((candidate) => candidate.startsWith(start));
      if (line !== undefined) resolve(line);
    }
  }

  /** The first line that starts so; rejects when the program ends without it. */
  async line(start: string): Promise<string> {
    const had = this.#lines.find((line) => line.startsWith(start));
    if (had !== undefined) return had;
    const came = new Promise<string>((resolve) => this.#waiting.set(start, resolve));
    const never = this.exited.then(() => {
      const line = this.#lines.find((candidate) => candidate.startsWith(start));
      if (line === undefined) throw new Error(`ended without a line "${start}"`);
      return line;
    });
    return Promise.race([came, never]);
  }
}

/** CPU time of a process in ns, by thread, because /proc/PID/stat counts in hundredths. */
function cpuNs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  let sum = 0;
  for (const task of readdirSync(tasks)) {
    sum += Number(readFileSync(join(tasks, task, 'schedstat'), 'utf8').split(' ')[0]);
  }
  return sum;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs one pair once. Rejects with the reason when it fails or hangs. */
export async function runPair(
  subject: Pick<Subject, 'single' | 'command'>,
  task: Task,
): Promise<Outcome> {
  const address = join(folder, `${prefix}${++runs}`);
  const args = [task.job, task.size, task.warmMs, task.runMs].map(String);
  const programs: Program[] = [];
  const start = (role: 'listen' | 'connect', at: string): Program => {
    const pinned = task.pinned === true ? ['taskset', '-c', role === 'listen' ? '1' : '0'] : [];
    const command = subject.command(task.size, role);
    const program = new Program([...pinned, ...command, role, ...args, at]);
    programs.push(program);
    return program;
  };
  const patience = 15_000 + 4 * (task.warmMs + task.runMs);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const pids = programs.map((p) => p.child.pid).join(' and ');
      reject(new Error(`hung for ${patience / 1e3} s; ended the processes ${pids}`));
    }, patience);
  });
  try {
    const outcome = converse(subject.single === true, start, address, task);
    return await Promise.race([outcome, late]);
  } finally {
    clearTimeout(timer);
    for (const program of programs) if (running.has(program.child)) program.child.kill('SIGKILL');
    removeLeftovers();
  }
}

async function converse(
  single: boolean,
  start: (role: 'listen' | 'connect', at: string) => Program,
  address: string,
  task: Task,
): Promise<Outcome> {
  const listener = single ? undefined : start('listen', address);
  const ready = await listener?.line('ready');
  const connector = start('connect', ready?.split(' ')[1] ?? address);
  const measured = async (): Promise<Outcome> => {
    if (task.job === 'idle') return watchIdle([listener, connector], connector, task);
    return JSON.parse(await connector.line('{')) as Outcome;
  };
  // A listener that has failed would keep the other side waiting.
  const outcome = await Promise.race([measured(), listener?.failed ?? connector.failed]);
  await connector.exited;
  listener?.child.stdin?.end();
  await listener?.exited;
  return outcome;
}

async function watchIdle(
  programs: (Program | undefined)[],
  connector: Program,
  task: Task,
): Promise<Outcome> {
  await connector.line('idle');
  const pids = programs.flatMap((program) => program?.child.pid ?? []);
  // The rest of the warm-up is left for the end: closing is no idleness.
  await sleep(0.9 * task.warmMs);
  const before = pids.map(cpuNs);
  const start = performance.now();
  await sleep(task.runMs);
  const spent = pids.map((pid, i) => cpuNs(pid) - before[i]);
  const seconds = (performance.now() - start) / 1e3;
  return { n: 1, seconds, cpuNs: spent.reduce((sum, ns) => sum + ns, 0) };
}

/**
 * One word there and back in C, both sides spinning: its mean tells whether something else ran
 * meanwhile, its median on which cores the machine has put us.
 */
export async function runControl(): Promise<number> {
  const task = { job: 'round-trip-spinning', size: 8, warmMs: 5, runMs: 25 };
  const { mean } = await runPair({ command: () => controlCommand }, task);
  return mean ?? Number.NaN;
}
