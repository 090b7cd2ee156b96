// What every program of the benchmark in TypeScript shares: the command line, the payload, the
// clock, the statistics, the one line of JSON. bench/README.md describes the protocol; the same in
// C is bench/peers/c/common.h.
import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';

/** Ends a phase: no sequence number ever reaches it. */
export const END_WORD = -1;
export const BATCH = 16;
/** Even a phase too short for it touches each slot of a large message. */
export const MESSAGES_MIN = 4;
const SAMPLES_MAX = 2_000_000;

export interface Job {
  readonly listens: boolean;
  readonly name: string;
  readonly size: number;
  readonly warmMs: number;
  readonly runMs: number;
  readonly address: string;
}

export function parseJob(argv: string[] = process.argv.slice(2)): Job {
  const [role, name, size, warmMs, runMs, address] = argv;
  if (argv.length !== 6 || name === undefined || address === undefined) {
    throw new Error('usage: listen|connect JOB SIZE WARM_MS RUN_MS ADDRESS');
  }
  const listens = role === 'listen';
  return {
    listens,
    name,
    size: Number(size),
    warmMs: Number(warmMs),
    runMs: Number(runMs),
    address,
  };
}

export function isRoundTrip(job: Job): boolean {
  return job.name.startsWith('round-trip');
}

/** Messages between two looks at the clock: rare enough to cost nothing. */
export function clockInterval(size: number): number {
  if (size <= 8192) return 1024;
  return size <= 1 << 20 ? 16 : 1;
}

/**
 * A private payload. Its last word is the message's number, so that a receiver that copied the
 * whole of it can check the very end of the copy.
 */
export class Payload {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly #last: number;

  constructor(size: number, buffer: ArrayBuffer = new ArrayBuffer(size), at: number = 0) {
    // A pool would put it beside other buffers, and a structured clone would take them all along.
    this.bytes = new Uint8Array(buffer, at, size);
    this.words = new Int32Array(buffer, at, size >> 2);
    this.#last = (size >> 2) - 1;
    for (let i = 0; i < size; i++) this.bytes[i] = i;
  }

  get word(): number {
    return this.words[this.#last];
  }

  set word(value: number) {
    this.words[this.#last] = value;
  }
}

export function wrongWord(expected: number, got: number): Error {
  return new Error(`expected word ${expected}, got ${got}`);
}

/**
 * Moves this thread from CPU 0 to CPU 1 when the harness has pinned the one that started it: for
 * pairs of which the harness starts only one half.
 */
export function moveAside(): void {
  if (!readFileSync('/proc/thread-self/status', 'utf8').includes('Cpus_allowed_list:\t0\n')) return;
  const thread = readlinkSync('/proc/thread-self').split('/').pop() ?? '';
  execFileSync('taskset', ['-cp', '1', thread], { stdio: 'ignore' });
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function sayReady(): void {
  say('ready');
}

/** Nanoseconds of single events, of a fixed capacity so that recording allocates nothing. */
export class Samples {
  readonly #ns: Float64Array = new Float64Array(SAMPLES_MAX).fill(0);
  #count = 0;

  get full(): boolean {
    return this.#count === SAMPLES_MAX;
  }

  add(ms: number): void {
    this.#ns[this.#count++] = ms * 1e6;
  }

  reset(): void {
    this.#count = 0;
  }

  /** The line of JSON; the cost of reading the clock is taken off each sample. */
  report(): string {
    const cost = clockCostNs();
    const sorted = this.#ns
      .subarray(0, this.#count)
      .map((ns) => Math.max(0, ns - cost))
      .sort();
    const at = (q: number): number => sorted[Math.floor(q * (sorted.length - 1))];
    const mean = sorted.reduce((sum, ns) => sum + ns, 0) / sorted.length;
    const quantiles = { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1) };
    return JSON.stringify({ n: sorted.length, mean, ...quantiles });
  }
}

/** The median cost of one empty interval. */
function clockCostNs(): number {
  const costs = new Float64Array(4001);
  for (let i = 0; i < costs.length; i++) {
    const start = performance.now();
    costs[i] = (performance.now() - start) * 1e6;
  }
  return costs.sort()[costs.length >> 1];
}

/**
 * Runs a synchronous round trip for the warm-up, then for the measurement, and prints the samples.
 */
export function measureTrips(job: Job, trip: () => void): void {
  const samples = new Samples();
  runTrips(samples, job.warmMs, trip);
  samples.reset();
  runTrips(samples, job.runMs, trip);
  say(samples.report());
}

function runTrips(samples: Samples, forMs: number, trip: () => void): void {
  const until = performance.now() + forMs;
  let start: number;
  do {
    start = performance.now();
    trip();
    samples.add(performance.now() - start);
  } while (start < until && !samples.full);
}

export function sayRate(messages: number, seconds: number): void {
  say(JSON.stringify({ n: messages, seconds }));
}
