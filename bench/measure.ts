// Measures groups of rows: the subjects of a group run in turn, several fresh processes each, with a
// C control between them. What is measured is each suite's own table (ipc.ts, patterns.ts).
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

export interface RowPlan {
  readonly name: string;
  readonly job: RowJob;
  readonly size: number;
  readonly unit: string;
  readonly spun: boolean;
  /** A second row of the same runs: their times, where `unit` is a rate. */
  readonly timesName?: string;
}

/** Rows that are compared with each other, and so are measured in the same minute. */
export interface Group {
  readonly rows: readonly RowPlan[];
  readonly rounds: number;
  /** Only for the plot: subjects of a single size stay out. */
  readonly sweep?: boolean;
  readonly runMs?: number;
  /** At least. */
  readonly warmMs?: number;
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

export interface Result {
  readonly rows: Row[];
  /** The control's median: on which cores, so to speak, all this was measured. */
  readonly controlNs: number;
  readonly runs: number;
  readonly discarded: number;
}

export async function measure(plan: readonly Group[], options: SuiteOptions): Promise<Result> {
  const groups = plan.filter((group) => entriesOf(group, options).length > 0);
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
  const rows = entries.flatMap(({ entry, controls }) => toRows(entry, controls, usual));
  const runs = entries.reduce((sum, { entry }) => sum + entry.runs.length, 0);
  const kept = entries.reduce((sum, { entry, controls }) => sum + calm(entry, controls).length, 0);
  return { rows, controlNs: usual, runs, discarded: runs - kept };
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

function toRows(entry: Entry, controls: readonly number[], usual: number): Row[] {
  const { row } = entry;
  const rows = [toRow(entry, row, controls, usual)];
  if (row.timesName === undefined) return rows;
  const times = { ...row, name: row.timesName, unit: 'ns' };
  return [...rows, toRow(entry, times, controls, usual)];
}

function toRow(entry: Entry, row: RowPlan, controls: readonly number[], usual: number): Row {
  const { subject } = entry;
  const kept = calm(entry, controls);
  const runs = kept.length > 0 ? kept : entry.runs;
  const outcomes = runs.map((run) => run.outcome);
  const bySubject = row.job.startsWith('one-way') || row.job.startsWith('give');
  const spun = bySubject ? subject.spins : row.spun;
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
