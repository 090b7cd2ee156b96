// The suite "ipc": channels between processes. What is measured is a table of row groups; the
// subjects of a group run in turn, several fresh processes each, with a C control between them.
import { measureRelay, relayPlans } from './relay.js';
import type { Row } from './report.js';
import { canPin, type Outcome, runControl, runPair, type Task } from './runner.js';
import type { RowJob, Subject } from './subjects.js';

export interface SuiteOptions {
  readonly quick: boolean;
  readonly only?: string;
  readonly subjects: readonly Subject[];
  /** Why a peer could not be built, by its name. */
  readonly missing: ReadonlyMap<string, string>;
  readonly onProgress: (text: string) => void;
}

interface RowPlan {
  readonly name: string;
  readonly job: RowJob;
  readonly size: number;
  readonly unit: string;
  readonly spun: boolean;
}

/** Rows that are compared with each other, and so are measured in the same minute. */
interface Group {
  readonly rows: readonly RowPlan[];
  readonly rounds: number;
  /** Only for the plot: subjects of a single size stay out. */
  readonly sweep?: boolean;
  readonly runMs?: number;
  /** At least. */
  readonly warmMs?: number;
}

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

/** A run with the control's means before and after it. */
interface Run {
  readonly outcome: Outcome;
  readonly controls: readonly [number, number];
}

interface Entry {
  readonly row: RowPlan;
  readonly subject: Subject;
  readonly job: string;
  readonly runs: Run[];
  /** Runs that failed; a second one ends the row. */
  failed: number;
  failure?: string;
}

/** Beyond this factor from the usual control the machine was disturbed, or in another state. */
const DRIFT = 1.3;

/** A group with what was measured of it. */
interface Measured {
  readonly group: Group;
  readonly entries: readonly Entry[];
  /** The control's means between its runs. */
  readonly controls: readonly number[];
}

export interface IpcResult {
  readonly rows: Row[];
  /** The control's median: on which cores, so to speak, all this was measured. */
  readonly controlNs: number;
  readonly runs: number;
  readonly discarded: number;
}

export async function runIpc(options: SuiteOptions): Promise<IpcResult> {
  const groups = plan(options.quick).filter((group) => entriesOf(group, options).length > 0);
  const measured: Measured[] = [];
  for (const [i, group] of groups.entries()) {
    const [name] = group.rows[0].name.split(',');
    options.onProgress(`${i + 1}/${groups.length} ${name}`);
    measured.push(await measureGroup(group, options));
  }
  const usual = median(measured.flatMap(({ controls }) => controls));
  const strange = measured.filter(({ controls }) => !near(median(controls), usual));
  // A few groups fell into another state of the machine. If many did, it has no usual state.
  for (const one of strange.length * 3 <= measured.length ? strange : []) {
    options.onProgress(`again, the machine had changed: ${one.group.rows[0].name}`);
    measured[measured.indexOf(one)] = await measureGroup(one.group, options);
  }
  const entries = measured.flatMap((one) => one.entries.map((entry) => ({ ...one, entry })));
  const rows = entries.map(({ entry, controls }) => toRow(entry, controls, usual));
  const runs = entries.reduce((sum, { entry }) => sum + entry.runs.length, 0);
  const kept = entries.reduce((sum, { entry, controls }) => sum + calm(entry, controls).length, 0);
  rows.push(...(await relayRows(options)));
  return { rows, controlNs: usual, runs, discarded: runs - kept };
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

function entriesOf(group: Group, options: SuiteOptions): Entry[] {
  const wanted = (text: string): boolean =>
    options.only === undefined || text.includes(options.only);
  return group.rows.flatMap((row) =>
    options.subjects.flatMap((subject) => {
      const job = subject.jobs[row.job];
      if (job === undefined || !wanted(row.name) || (group.sweep && subject.only64)) return [];
      const reason = options.missing.get(subject.peer ?? '') ?? subject.refuses?.(row.size);
      const failure = reason === undefined ? undefined : `skipped: ${reason}`;
      return [{ row, subject, job, runs: [], failed: failure === undefined ? 0 : 2, failure }];
    }),
  );
}

async function measureGroup(group: Group, options: SuiteOptions): Promise<Measured> {
  const entries = entriesOf(group, options);
  let before = await runControl();
  const controls = [before];
  // Twice the rounds at most: what is discarded is measured again, but not for ever.
  for (let round = 0; round < 2 * group.rounds; round++) {
    const due = entries.filter((entry) => {
      return entry.failed < 2 && calm(entry, controls).length < group.rounds;
    });
    for (const entry of due) {
      try {
        const outcome = await runPair(entry.subject, taskFor(entry, group, options.quick));
        const after = await runControl();
        entry.runs.push({ outcome, controls: [before, after] });
        controls.push(after);
        before = after;
      } catch (error) {
        entry.failed++;
        entry.failure = `failed: ${(error as Error).message.split('\n')[0]}`;
      }
    }
  }
  return { group, entries, controls };
}

function taskFor(entry: Entry, group: Group, quick: boolean): Task {
  const { size } = entry.row;
  const warmMsMin = Math.max(group.warmMs ?? 0, entry.subject.warmMsMin ?? 0);
  const warmMs = Math.max(quick ? 200 : 300, warmMsMin);
  // Where the kernel puts both sides on one CPU, nothing that sleeps has to be woken.
  const pinned = canPin && entry.row.job === 'round-trip-asleep';
  return { job: entry.job, size, warmMs, runMs: group.runMs ?? (quick ? 100 : 400), pinned };
}

function near(control: number, usual: number): boolean {
  return control < usual * DRIFT && control > usual / DRIFT;
}

/** The runs in which the control stayed where it usually is during this group. */
function calm({ row, runs }: Entry, controls: readonly number[]): readonly Run[] {
  // CPU time of one's own does not grow when others run.
  if (row.job === 'idle') return runs;
  const usual = median(controls);
  return runs.filter((run) => run.controls.every((control) => near(control, usual)));
}

function toRow(entry: Entry, controls: readonly number[], usual: number): Row {
  const { row, subject } = entry;
  const kept = calm(entry, controls);
  const runs = kept.length > 0 ? kept : entry.runs;
  const outcomes = runs.map((run) => run.outcome);
  const spun = row.job.startsWith('one-way') ? subject.spins : row.spun;
  const base = { name: row.name, subject: subject.name, unit: row.unit, spun };
  if (outcomes.length === 0) {
    const none = { value: null, p50: null, p99: null, p999: null, max: null, n: 0 };
    return { ...base, ...none, note: entry.failure ?? 'not run' };
  }
  const control = median(controls);
  const discarded = entry.runs.length - kept.length;
  const notes = [
    entry.failure ?? '',
    discarded > 0 ? `${discarded} of ${entry.runs.length} runs discarded` : '',
    kept.length === 0 ? 'the control never was calm: all kept' : '',
    near(control, usual) ? '' : `control ${control.toFixed(0)} ns, usually ${usual.toFixed(0)}`,
  ];
  const note = notes.filter((text) => text !== '').join('; ');
  return { ...base, ...summary(row, outcomes), note };
}

function summary(
  row: RowPlan,
  outcomes: readonly Outcome[],
): Pick<Row, 'value' | 'p50' | 'p99' | 'p999' | 'max' | 'n'> {
  const n = outcomes.reduce((sum, outcome) => sum + outcome.n, 0);
  if (row.unit === 'ns') {
    const over = (pick: (o: Outcome) => number | undefined): number =>
      median(outcomes.map((o) => pick(o) ?? Number.NaN));
    const p50 = over((o) => o.p50);
    const max = Math.max(...outcomes.map((o) => o.max ?? Number.NaN));
    return { value: p50, p50, p99: over((o) => o.p99), p999: over((o) => o.p999), max, n };
  }
  const rates = outcomes.map((outcome) => rateOf(row, outcome));
  const value = median(rates);
  return { value, p50: value, p99: null, p999: null, max: Math.max(...rates), n };
}

function rateOf(row: RowPlan, outcome: Outcome): number {
  const seconds = outcome.seconds ?? Number.NaN;
  if (row.job === 'idle') return ((outcome.cpuNs ?? Number.NaN) / 1e9 / seconds) * 100;
  const messages = outcome.n / seconds;
  return row.unit === 'GB/s' ? (messages * row.size) / 1e9 : messages;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
