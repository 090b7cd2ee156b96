// The suite "ipc": channels between processes. What is measured is a table of row groups.
import { type Group, measure, type Result, type RowPlan, type SuiteOptions } from './measure.js';
import { measureRelay, relayPlans } from './relay.js';
import type { Row } from './report.js';

const SIZES = [8, 64, 1000, 4096, 65536, 1 << 20, 64 << 20] as const;

/** From this size on nothing is gained by publishing several messages at once. */
const BATCHED_MAX = 4096;

export function sizeName(size: number): string {
  if (size >= 1 << 20) return `${size >> 20} MiB`;
  return size >= 65536 ? `${size >> 10} KiB` : `${String(size).replace('000', ' 000')} B`;
}

function roundTrip(size: number, how: 'spinning' | 'asleep'): RowPlan {
  const name = `round trip ${sizeName(size)}, ${how}`;
  return { name, job: `round-trip-${how}`, size, unit: 'ns', spun: how === 'spinning' };
}

function oneWay(size: number): RowPlan[] {
  const name = `one way ${sizeName(size)}`;
  if (size > BATCHED_MAX) {
    return [{ name, job: 'one-way-unbatched', size, unit: 'GB/s', spun: false }];
  }
  const row = { size, unit: 'messages/s', spun: false };
  return [
    { ...row, name: `${name}, batched`, job: 'one-way-batched' },
    { ...row, name: `${name}, unbatched`, job: 'one-way-unbatched' },
  ];
}

function handOver(size: number): RowPlan {
  const name = `hand-over alone ${sizeName(size)}`;
  return { name, job: 'hand-over', size, unit: 'ns', spun: true };
}

function plan(quick: boolean): Group[] {
  // Two rounds where a target is judged, one for the rest of the plot.
  const rounds = quick ? 2 : 5;
  const sweepRounds = quick ? 1 : 5;
  const sweep = quick ? [1000, 65536, 1 << 20] : [8, 1000, 4096, 65536, 1 << 20];
  const idle = { name: 'idle CPU, two channels', job: 'idle', size: 64, spun: false } as const;
  const connect = { name: 'time to connect', job: 'connect', size: 64, spun: false } as const;
  const judged = [64, 1000, 65536, 1 << 20];
  return [
    { rows: [roundTrip(64, 'spinning'), roundTrip(64, 'asleep')], rounds },
    ...sweep.map((size) => {
      const rows = [roundTrip(size, 'spinning'), roundTrip(size, 'asleep')];
      return { rows, rounds: sweepRounds, sweep: true };
    }),
    ...SIZES.map((size) => {
      const sized = judged.includes(size) ? rounds : sweepRounds;
      return { rows: oneWay(size), rounds: sized, sweep: size !== 64 };
    }),
    { rows: [handOver(64), handOver(64 << 20)], rounds },
    { rows: [{ ...connect, unit: 'ns' }], rounds: quick ? 1 : 3 },
    // V8 tidies its heap up once, some 8 s after the start: the long form begins after that.
    {
      rows: [{ ...idle, unit: '% of a core' }],
      rounds: 1,
      ...(quick ? { runMs: 2000 } : { warmMs: 12_000, runMs: 10_000 }),
    },
  ];
}

export async function runIpc(options: SuiteOptions): Promise<Result> {
  const measured = await measure(plan(options.quick), options);
  return { ...measured, rows: [...measured.rows, ...(await relayRows(options))] };
}

async function relayRows(options: SuiteOptions): Promise<Row[]> {
  if (!options.subjects.some((subject) => subject.name === 'ukshm')) return [];
  const rows: Row[] = [];
  for (const relay of relayPlans(options.quick)) {
    if (options.only !== undefined && !relay.name.includes(options.only)) continue;
    options.onProgress(relay.name);
    rows.push(...(await measureRelay(relay)));
  }
  return rows;
}
