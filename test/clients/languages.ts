// The clients as processes: each language has actors with the same command lines, which tell in
// lines of JSON how it went. Used by the tests that pair the languages.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../house/root.js';
import { type Owner, until } from '../process/actors.js';

/** What an actor tells. */
export interface Event {
  readonly event: string;
  readonly messages?: number;
  readonly bytes?: number;
  readonly code?: string;
  readonly message?: string;
  /** Of topics. */
  readonly subscribers?: number;
  readonly first?: number;
  readonly missed?: number;
}

/** An actor that runs. */
export interface Running {
  readonly child: ChildProcess;
  readonly events: Event[];
  /** How it ended: its last event. */
  readonly ended: Promise<Event | undefined>;
}

export class Language {
  readonly name: string;
  /** Why it cannot be tried here. */
  readonly missing: string | undefined;
  #command: readonly string[];
  constructor(name: string, command: readonly string[], missing?: string) {
    this.name = name;
    this.#command = command;
    this.missing = missing;
  }

  start(owner: Owner, ...args: string[]): Running {
    const [program = '', ...first] = this.#command;
    const child = spawn(program, [...first, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    });
    owner.after(() => child.kill('SIGKILL'));
    const events: Event[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => events.push(JSON.parse(line)));
    const ended = new Promise<Event | undefined>((resolve) => {
      child.on('close', () => resolve(events.at(-1)));
    });
    return { child, events, ended };
  }

  async startReady(owner: Owner, ...args: string[]): Promise<Running> {
    const running = this.start(owner, ...args);
    await until(`${this.name} ${args.join(' ')} is ready`, () => running.events.length > 0);
    assert.deepEqual(running.events[0], { event: 'ready' });
    return running;
  }
}

/** Everything that a compiler can say against the header. */
export const STRICT: readonly string[] = [
  ...['-std=gnu11', '-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Werror'],
];

/** Compiles a program of clients/c so that it stops at what is undefined, or leaks. */
export function compileSanitized(source: string, program: string): void {
  const checks = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-g', '-O1'];
  const path = join(ROOT, 'clients/c', source);
  execFileSync('cc', [...STRICT, ...checks, '-pthread', path, '-o', program], {
    stdio: 'inherit',
  });
}

/** A program of clients/python. */
export function pythonProgram(script: string, ...args: string[]): Language {
  const path = join(ROOT, 'clients/python', script);
  const version = spawnSync('python3', ['-c', 'import sys; print(sys.version_info >= (3, 9))']);
  const found = version.status === 0 && String(version.stdout).trim() === 'True';
  const cure = 'needs Python 3.9 or newer as python3: apt-get install python3';
  return new Language('Python', ['python3', ...args, path], found ? undefined : cure);
}

/** A program of this folder. */
export function typescriptProgram(script: string): Language {
  const path = fileURLToPath(new URL(script, import.meta.url));
  return new Language('TypeScript', [process.execPath, path]);
}
