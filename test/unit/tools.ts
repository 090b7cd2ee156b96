// What the unit tests share: child processes, and looks at what this process holds.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { GUARD_BYTES } from '../../src/sys/memory.js';

/** How a child ended, and what it printed. */
export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ChildOptions {
  readonly nodeOptions?: readonly string[];
  readonly uid?: number;
  /** A command that runs the rest of the command line, such as prlimit. */
  readonly by?: readonly string[];
  /** Only a guard against hanging. */
  readonly timeoutMs?: number;
}

/** The command that runs this Node: its path, or under an emulator the emulator's whole command. */
export function nodeCommand(): string[] {
  // An emulator pretends in /proc/self/exe to be the program; in the task's own folder it does not.
  const task = `/proc/self/task/${process.pid}`;
  const real = readlinkSync(`${task}/exe`);
  if (real === process.execPath || real.endsWith('/node')) return [process.execPath];
  const words = readFileSync(`${task}/cmdline`, 'utf8').split('\0');
  return [real, ...words.slice(1, words.indexOf(process.execPath)), process.execPath];
}

/** Whether an emulator runs this process: everything takes twenty times as long. */
export const EMULATED: boolean = nodeCommand().length > 1;

/** Runs `fixtures/<name>.js` in a process of its own, to its end. */
export function runFixture(
  name: string,
  args: readonly string[] = [],
  options: ChildOptions = {},
): Promise<Ended> {
  const { nodeOptions = [], uid, by = [], timeoutMs = 60_000 } = options;
  const script = fileURLToPath(new URL(`fixtures/${name}.js`, import.meta.url));
  const words = [...by, ...nodeCommand(), '--enable-source-maps', ...nodeOptions, script, ...args];
  const [program = '', ...rest] = words;
  const child = spawn(program, rest, { uid, gid: uid, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, stdout, stderr });
    });
  });
}

/** As `runFixture`; the child must succeed and print one JSON text. */
export async function askFixture<Answer>(
  name: string,
  args: readonly string[] = [],
  options: ChildOptions = {},
): Promise<Answer> {
  const { status, signal, stdout, stderr } = await runFixture(name, args, options);
  if (status === 0) return JSON.parse(stdout) as Answer;
  throw new Error(`${name} ${args.join(' ')} ended with ${signal ?? status}:\n${stderr}${stdout}`);
}

/** A user without rights, and why nothing can be run as that user, if so. */
export const NOBODY = 65534;
export function whyNotAsNobody(): string | undefined {
  if (process.getuid?.() !== 0) return 'not possible here: needs root, to become another user';
  const { status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url)], {
    uid: NOBODY,
    gid: NOBODY,
  });
  return EMULATED || status === 0
    ? undefined
    : "not possible here: user nobody cannot read this folder ('chmod o+x' its parents)";
}

/** What this process has open, by number. */
export function openDescriptors(): Map<number, string> {
  const open = new Map<number, string>();
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      open.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // The descriptor by which the folder itself was read.
    }
  }
  return open;
}

/** How many of them are regions or outboxes. */
export function regionDescriptors(): number {
  return [...openDescriptors().values()].filter((path) => path.startsWith('/memfd:ukshm:')).length;
}

/** One line of /proc/self/maps. */
export interface MapsEntry {
  readonly start: number;
  readonly end: number;
  readonly rights: string;
  readonly path: string;
}

export function maps(): MapsEntry[] {
  const lines = readFileSync('/proc/self/maps', 'utf8').trim().split('\n');
  return lines.map((line) => {
    const [range = '', rights = '', , , , ...path] = line.split(/\s+/);
    const [start = 0, end = 0] = range.split('-').map((text) => Number.parseInt(text, 16));
    return { start, end, rights, path: path.join(' ') };
  });
}

/** Mappings of regions and outboxes whose name contains `name`. */
export function regionMaps(name: string = ''): MapsEntry[] {
  return maps().filter(({ path }) => path.startsWith('/memfd:ukshm:') && path.includes(name));
}

/**
 * Bytes of memfds that are in memory and mapped here. RssShmem would also count the program itself
 * where that lies on a tmpfs.
 */
export function memfdBytes(): number {
  const smaps = readFileSync('/proc/self/smaps', 'utf8');
  const ofMemfds = smaps.matchAll(/ \/memfd:.*\n(?:.*\n)*?Rss:\s+(\d+) kB/g);
  return [...ofMemfds].reduce((sum, [, kilobytes]) => sum + Number(kilobytes) * 1024, 0);
}

/** How many inaccessible pieces of a guard's length there are; Node's own are of other lengths. */
export function guards(): number {
  const isGuard = ({ start, end, rights, path }: MapsEntry): boolean =>
    rights.startsWith('---') &&
    path === '' &&
    (end - start) % GUARD_BYTES === 0 &&
    end - start < 2 ** 22;
  return maps().filter(isGuard).length;
}

/** Collects garbage and lets finalizers run until `done`, or for some seconds. */
export async function collectUntil(done: () => boolean): Promise<boolean> {
  for (let i = 0; i < 200; i++) {
    globalThis.gc?.();
    await setImmediate();
    if (done()) return true;
  }
  return done();
}

/** A number of /proc/self/status, in bytes. */
export function statusBytes(field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(
    readFileSync('/proc/self/status', 'utf8'),
  );
  return Number(match?.[1] ?? 0) * 1024;
}
