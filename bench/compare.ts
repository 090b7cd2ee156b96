// What the suite "ipc" is to reach, as ratios between subjects measured in the same run.
import { formatValue, type Row } from './report.js';

export interface Target {
  readonly text: string;
  readonly wanted: string;
  /** `undefined`: a subject is missing. */
  readonly measured?: string;
  readonly reached?: boolean;
}

/** Values by row and subject. */
export class Results {
  readonly #rows: readonly Row[];

  constructor(rows: readonly Row[]) {
    this.#rows = rows;
  }

  value(name: string, subject = 'ukshm'): number | undefined {
    return this.#row(name, subject)?.value ?? undefined;
  }

  show(name: string, subject = 'ukshm'): string {
    const row = this.#row(name, subject);
    return row === undefined ? '-' : formatValue(row.value, row.unit);
  }

  has(name: string): boolean {
    return this.#rows.some((row) => row.name === name);
  }

  #row(name: string, subject: string): Row | undefined {
    return this.#rows.find((row) => row.name === name && row.subject === subject);
  }
}

const SPINNING = 'round trip 64 B, spinning';
const ASLEEP = 'round trip 64 B, asleep';
const BATCHED_64 = 'one way 64 B, batched';
const UNBATCHED_64 = 'one way 64 B, unbatched';
/** Two medians nearer than this are the same rate. */
const SAME = 0.95;

export function ipcTargets(rows: readonly Row[]): Target[] {
  const results = new Results(rows);
  return [
    ...spinningTargets(results),
    ...asleepTargets(results),
    ...oneWayTargets(results),
    ...largeTargets(results),
    ...otherTargets(results),
  ];
}

/** A rate of ours must be `limit` times theirs. */
export function atLeastTimes(
  rows: readonly Row[],
  text: string,
  name: string,
  rival: string,
  limit: number,
  rivalName: string = name,
  subject = 'ukshm',
): Target[] {
  const results = new Results(rows);
  if (!results.has(name)) return [];
  const wanted = `≥ ${limit} ×`;
  const ours = results.value(name, subject);
  const theirs = results.value(rivalName, rival);
  if (ours === undefined || theirs === undefined) return [{ text, wanted }];
  const both = `${results.show(name, subject)} : ${results.show(rivalName, rival)}`;
  const times = ours / theirs;
  const measured = `${times.toFixed(times < 2 ? 2 : 1)} × (${both})`;
  return [{ text, wanted, measured, reached: times >= limit }];
}

/** `ours / theirs` of one row must be at most (times) or at least (rates) `limit`. */
function ratio(
  results: Results,
  text: string,
  name: string,
  rival: string,
  limit: number,
  rivalName = name,
): Target[] {
  if (!results.has(name)) return [];
  const rate = name.startsWith('one way') || name.startsWith('relay');
  const wanted = `${rate ? '≥' : '≤'} ${limit} ×`;
  const ours = results.value(name);
  const theirs = results.value(rivalName, rival);
  if (ours === undefined || theirs === undefined) return [{ text, wanted }];
  const measured = `${(ours / theirs).toFixed(2)} × (${results.show(name)} : ${results.show(rivalName, rival)})`;
  const reached = rate ? ours / theirs >= limit : ours / theirs <= limit;
  return [{ text, wanted, measured, reached }];
}

function atLeast(
  results: Results,
  text: string,
  name: string,
  limit: number,
  subject = 'ukshm',
): Target[] {
  if (!results.has(name)) return [];
  const wanted = `≥ ${formatValue(limit, 'messages/s')}`;
  const value = results.value(name, subject);
  if (value === undefined) return [{ text, wanted }];
  return [{ text, wanted, measured: results.show(name, subject), reached: value >= limit }];
}

function spinningTargets(results: Results): Target[] {
  const what = 'round trip 64 B, spinning';
  return [
    ...ratio(results, `${what}: against C, one word`, SPINNING, 'C, one word', 1.4),
    ...ratio(results, `${what}: against C, shared memory`, SPINNING, 'C, shared memory', 1),
    ...ratio(results, `${what}: ahead of iceoryx2`, SPINNING, 'iceoryx2', 1),
    ...ratio(results, `${what}: ahead of Aeron`, SPINNING, 'Aeron IPC', 1),
    ...timesFaster(results, `${what}: against child.send`, 150),
  ];
}

function timesFaster(results: Results, text: string, limit: number): Target[] {
  if (!results.has(SPINNING)) return [];
  const wanted = `${limit} × faster`;
  const ours = results.value(SPINNING);
  const theirs = results.value(ASLEEP, 'child.send');
  if (ours === undefined || theirs === undefined) return [{ text, wanted }];
  const factor = theirs / ours;
  const both = `${results.show(SPINNING)} : ${results.show(ASLEEP, 'child.send')}`;
  const measured = `${factor.toFixed(0)} × faster (${both})`;
  return [{ text, wanted, measured, reached: factor >= limit }];
}

function asleepTargets(results: Results): Target[] {
  const what = 'round trip 64 B, both asleep';
  const rivals = ['Node net', 'child.send', 'postMessage', 'zeromq'];
  return [
    ...ratio(results, `${what}: against C, Unix socket`, ASLEEP, 'C, Unix socket', 1.25),
    ...rivals.flatMap((rival) => ratio(results, `${what}: ahead of ${rival}`, ASLEEP, rival, 1)),
  ];
}

function oneWayTargets(results: Results): Target[] {
  const batched = 'one way 64 B, batched';
  const unbatched = 'one way 64 B, unbatched';
  const kilo = 'one way 1 000 B';
  const socket = 'C, Unix socket';
  return [
    ...atLeast(results, `${batched} by copy`, BATCHED_64, 35e6),
    ...atLeast(results, `${batched} through views`, BATCHED_64, 20e6, 'ukshm, views'),
    ...atLeast(results, unbatched, UNBATCHED_64, 10e6),
    ...atLeast(
      results,
      `${batched}, readable + drain`,
      BATCHED_64,
      40e6,
      'ukshm, readable + drain',
    ),
    ...ratio(results, `${batched}: ahead of iceoryx2`, BATCHED_64, 'iceoryx2', 1, UNBATCHED_64),
    ...ratio(results, `${batched}: ahead of Aeron`, BATCHED_64, 'Aeron IPC', 1, UNBATCHED_64),
    ...ratio(
      results,
      `${kilo}: batched against C, Unix socket, one write a message`,
      `${kilo}, batched`,
      socket,
      8,
      `${kilo}, unbatched`,
    ),
    ...ratio(results, `${kilo}: both batched`, `${kilo}, batched`, socket, 8),
    ...ratio(results, `${kilo}: both unbatched`, `${kilo}, unbatched`, socket, 8),
  ];
}

function largeTargets(results: Results): Target[] {
  const c = 'C, shared memory';
  const handOver64 = results.value('hand-over alone 64 B');
  const handOver = results.value('hand-over alone 64 MiB');
  const rates = ['one way 64 KiB', 'one way 1 MiB'].flatMap((name) =>
    ratio(results, `${name}: at the rate of C`, name, c, SAME),
  );
  if (!results.has('hand-over alone 64 MiB')) return rates;
  const text = 'hand-over alone: 64 MiB against 64 B';
  if (handOver === undefined || handOver64 === undefined)
    return [...rates, { text, wanted: '< 5 ×' }];
  const factor = handOver / handOver64;
  const measured = `${factor.toFixed(2)} × (${results.show('hand-over alone 64 MiB')} : ${results.show('hand-over alone 64 B')})`;
  return [...rates, { text, wanted: '< 5 ×', measured, reached: factor < 5 }];
}

function otherTargets(results: Results): Target[] {
  const relays = ['relay 100 MB', 'relay 2 GiB', 'relay 100 MB, no hash'].flatMap((name) =>
    ['pipes, node:stream', 'pipes, blocking calls'].flatMap((rival) =>
      ratio(results, `${name}: against ${rival}`, name, rival, 3),
    ),
  );
  const idle = results.value('idle CPU, two channels');
  if (idle === undefined) return relays;
  const text = 'idle CPU of two channels';
  const measured = results.show('idle CPU, two channels');
  return [{ text, wanted: '< 0.05 % of a core', measured, reached: idle < 0.05 }, ...relays];
}

export function formatTargets(targets: readonly Target[]): string {
  const cells = targets.map((target) => [
    verdict(target),
    target.text,
    target.wanted,
    target.measured ?? 'a subject is missing',
  ]);
  const widths = [0, 1, 2].map((i) => Math.max(...cells.map((line) => line[i].length)));
  return cells
    .map((line) => line.map((cell, i) => (i < 3 ? cell.padEnd(widths[i]) : cell)).join('  '))
    .join('\n');
}

function verdict(target: Target): string {
  if (target.reached === undefined) return 'not measured';
  return target.reached ? 'reached' : 'not reached';
}
