// The suite "patterns": requests, topics, forked children, Python.
import { atLeastTimes, type Target } from './compare.js';
import { sizeName } from './ipc.js';
import { type Group, measure, type Result, type RowPlan, type SuiteOptions } from './measure.js';
import type { Row } from './report.js';

const IN_FLIGHT = [1, 16, 256] as const;

function requests(how: 'asleep' | 'spinning', inFlight: (typeof IN_FLIGHT)[number]): RowPlan {
  const name = `requests 64 B, ${inFlight} in flight, ${how}`;
  return {
    name,
    timesName: `${name}: time of one`,
    job: `requests-${how}-${inFlight}`,
    size: 64,
    unit: 'messages/s',
    spun: how === 'spinning',
  };
}

const READERS = [1, 4, 16] as const;

/** What is published and read by all of them. */
function topic(size: number, readers: (typeof READERS)[number]): RowPlan {
  return {
    name: `topic ${sizeName(size)}, ${readers} reading`,
    job: `topic-${readers}`,
    size,
    unit: size >= 65536 ? 'GB/s' : 'messages/s',
    spun: false,
  };
}

const FORK_SIZES = { 100: '100 B', 10000: '10 KB', 1000000: '1 MB', 64000000: '64 MB' } as const;
type ForkSize = keyof typeof FORK_SIZES;

/** What a parent sends to its child. */
function fork(size: ForkSize, mode: 'json' | 'advanced', inFlight: 1 | 16 = 1): RowPlan {
  const under = inFlight === 1 ? '' : `, ${inFlight} under way`;
  return {
    name: `fork ${FORK_SIZES[size]}, ${mode}${under}`,
    job: `fork-${mode}-${inFlight}`,
    size,
    unit: 'messages/s',
    spun: false,
  };
}

function forkGroups(quick: boolean): Group[] {
  const small = [100, 10000] as const;
  const large = [1000000, 64000000] as const;
  const rounds = quick ? 3 : 9;
  // Two that sleep and wake each other are twice as fast at times: many short runs.
  const many = { rounds: quick ? 5 : 25, runMs: 300 };
  const groups = [
    { rows: small.map((size) => fork(size, 'advanced', 16)), ...many },
    { rows: small.map((size) => fork(size, 'json')), ...many },
    { rows: small.map((size) => fork(size, 'advanced')), ...many },
    { rows: large.map((size) => fork(size, 'advanced')), rounds, runMs: 500 },
    { rows: [fork(1000000, 'json')], rounds: quick ? 2 : 5, runMs: 500 },
  ];
  // A single message takes Node a quarter of a minute.
  const longest = { rows: [fork(64000000, 'json')], rounds: 1, warmMs: 20_000, runMs: 1000 };
  return quick ? groups : [...groups, longest];
}

const TO_PYTHON: RowPlan = {
  name: 'one way 1 MiB, Node to Python',
  job: 'one-way-unbatched',
  size: 1 << 20,
  unit: 'GB/s',
  spun: false,
};

function plan(quick: boolean): Group[] {
  const rounds = quick ? 2 : 5;
  const runMs = quick ? 300 : 1000;
  const asked = IN_FLIGHT.map((inFlight) => {
    const rows = [requests('spinning', inFlight), requests('asleep', inFlight)];
    return { rows, rounds, runMs };
  });
  const published = [1000, 1 << 20].map((size) => {
    return { rows: READERS.map((readers) => topic(size, readers)), rounds, runMs };
  });
  return [...asked, ...published, { rows: [TO_PYTHON], rounds }, ...forkGroups(quick)];
}

export function runPatterns(options: SuiteOptions): Promise<Result> {
  return measure(plan(options.quick), options);
}

/** What the suite is to reach, as ratios between subjects measured in the same run. */
export function patternTargets(rows: readonly Row[]): Target[] {
  const row = (how: string): string => `requests 64 B, 16 in flight, ${how}`;
  return [
    ...atLeastTimes(rows, 'requests, 16 in flight, asleep: zeromq', row('asleep'), 'zeromq', 10),
    ...atLeastTimes(
      rows,
      'requests, 16 in flight, spinning: zeromq',
      row('spinning'),
      'zeromq',
      10,
      row('asleep'),
    ),
    ...atLeastTimes(
      rows,
      'topic of 1 MiB to 16: zeromq',
      'topic 1 MiB, 16 reading',
      'zeromq pub/sub',
      20,
      'topic 1 MiB, 16 reading',
      'ukshm topic',
    ),
    ...atLeastTimes(
      rows,
      '1 MiB from Node to Python: net',
      TO_PYTHON.name,
      'net to Python',
      5,
      TO_PYTHON.name,
      'ukshm to Python',
    ),
    ...forkTargets(rows),
  ];
}

/** Not slower than Node's beyond a twentieth, and much faster where parts are large. */
function forkTargets(rows: readonly Row[]): Target[] {
  const wanted: [RowPlan, number][] = [
    [fork(100, 'advanced'), 0.95],
    [fork(100, 'advanced', 16), 0.95],
    [fork(100, 'json'), 0.95],
    [fork(1000000, 'advanced'), 5],
    [fork(1000000, 'json'), 5],
    [fork(64000000, 'advanced'), 20],
    [fork(64000000, 'json'), 20],
  ];
  return wanted.flatMap(([{ name }, limit]) =>
    atLeastTimes(rows, `${name}: Node's`, name, 'Node fork', limit, name, 'ukshm fork'),
  );
}
