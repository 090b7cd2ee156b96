// The suite "offer": what it takes to hand bytes over, until the receiver has read all of them. From
// which size does moving pages beat copying?
import { Results, type Target } from './compare.js';
import { sizeName } from './ipc.js';
import { type Group, measure, type Result, type RowPlan, type SuiteOptions } from './measure.js';
import type { Row } from './report.js';

const KIB = 1024;
const MIB = 1 << 20;
const SIZES = [
  ...[1000, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB],
  ...[MIB, 4 * MIB, 16 * MIB, 64 * MIB],
];
const QUICK_SIZES = [1000, 64 * KIB, MIB, 16 * MIB, 64 * MIB];
const PAGE = 4096;
const OFFER = 'ukshm offer';
const CHANNEL = 'ukshm channel';
const COPYING = ['ukshm channel, copied', 'Node net', 'C, Unix socket', 'C, vmsplice'];

function handOver(size: number): RowPlan {
  return { name: `hand-over ${sizeName(size)}, read`, job: 'give', size, unit: 'ns', spun: false };
}

const ONE_PAGE: RowPlan = {
  name: 'one page made, given and read',
  job: 'give-page',
  size: PAGE,
  unit: 'ns',
  spun: false,
};
const PAGES: RowPlan = {
  name: 'pages given, 16 under way',
  job: 'give-rate',
  size: PAGE,
  unit: 'messages/s',
  spun: false,
};

function plan(quick: boolean): Group[] {
  const rounds = quick ? 2 : 5;
  const runMs = quick ? 200 : 600;
  return [
    { rows: [ONE_PAGE, PAGES], rounds, runMs },
    ...(quick ? QUICK_SIZES : SIZES).map((size) => ({
      rows: [handOver(size)],
      rounds: quick ? 1 : 5,
      // A few of the largest take as long as thousands of the smallest.
      runMs: size >= MIB ? 3 * runMs : runMs,
    })),
  ];
}

export function runOffers(options: SuiteOptions): Promise<Result> {
  return measure(plan(options.quick), options);
}

/** What the suite is to reach, as ratios between subjects measured in the same run. */
export function offerTargets(rows: readonly Row[]): Target[] {
  const results = new Results(rows);
  const large = SIZES.filter((size) => size >= MIB).map((size) => handOver(size).name);
  return [
    ...atMost(results, 'one page: C, memfd passed', ONE_PAGE.name, OFFER, 'C, memfd passed', 2),
    ...large.flatMap((name) =>
      COPYING.flatMap((rival) => atMost(results, `${name}: ${rival}`, name, OFFER, rival, 1)),
    ),
    ...atMost(
      results,
      'channel, 1 000 B: C, Unix socket',
      handOver(1000).name,
      CHANNEL,
      'C, Unix socket',
      1 / 6,
    ),
  ];
}

/** A time of ours must be at most `limit` times theirs. */
function atMost(
  results: Results,
  text: string,
  name: string,
  subject: string,
  rival: string,
  limit: number,
): Target[] {
  if (!results.has(name)) return [];
  const wanted = `≤ ${limit < 1 ? `1/${Math.round(1 / limit)}` : limit} ×`;
  const ours = results.value(name, subject);
  const theirs = results.value(name, rival);
  if (ours === undefined || theirs === undefined) return [{ text, wanted }];
  const both = `${results.show(name, subject)} : ${results.show(name, rival)}`;
  const measured = `${(ours / theirs).toFixed(2)} × (${both})`;
  return [{ text, wanted, measured, reached: ours / theirs <= limit }];
}
