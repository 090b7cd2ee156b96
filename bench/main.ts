// `npm run bench -- SUITE [options]`: runs a suite of benchmarks, prints its table, and writes
// what was asked for. bench/README.md says how the figures come about.
import { parseArgs } from 'node:util';
import { formatTargets, ipcTargets, type Target } from './compare.js';
import { runIpc } from './ipc.js';
import type { Result, SuiteOptions } from './measure.js';
import { offerTargets, runOffers } from './offers.js';
import { patternTargets, runPatterns } from './patterns.js';
import { plotIpc, plotOffers } from './plot.js';
import {
  describeMachine,
  formatTable,
  formatValue,
  type Report,
  type Row,
  writeJson,
} from './report.js';
import {
  buildPeers,
  forkSubjects,
  giveSubjects,
  pythonSubjects,
  requestSubjects,
  type Subject,
  subjects,
  topicSubjects,
} from './subjects.js';

const USAGE = `usage: npm run bench -- SUITE [options]

suites
  ipc                  channels between processes
  patterns             requests and replies, topics, fork, Node to Python
  offer                bytes handed over and read, by moving pages and by copying

options
  --json FILE          write the rows as JSON
  --plot FILE.svg      draw latency and throughput against size
  --quick              a few minutes instead of 20; rougher
  --only TEXT          only rows whose name contains TEXT
  --subjects A,B       only subjects whose name contains A or B
  --help`;

interface Arguments {
  readonly suite: string;
  readonly json?: string;
  readonly plot?: string;
  readonly quick: boolean;
  readonly only?: string;
  readonly subjects: readonly Subject[];
}

function parse(): Arguments {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      plot: { type: 'string' },
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      subjects: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help === true) {
    console.log(USAGE);
    process.exit(0);
  }
  const [suite] = positionals;
  if (positionals.length !== 1 || !Object.hasOwn(suites, suite)) throw new Error(USAGE);
  const parts = values.subjects?.split(',').map((part) => part.trim().toLowerCase());
  const all = suites[suite].subjects;
  const chosen = all.filter((subject) => {
    return parts?.some((part) => subject.name.toLowerCase().includes(part)) ?? true;
  });
  if (chosen.length === 0) {
    throw new Error(`no such subject; there are ${all.map((s) => s.name).join('; ')}`);
  }
  if (values.plot !== undefined && suites[suite].plot === undefined) {
    throw new Error(`the suite '${suite}' has no plot`);
  }
  return { ...values, suite, quick: values.quick === true, subjects: chosen };
}

/** A suite: who is measured, at what, and what is to be reached. */
interface Suite {
  readonly subjects: readonly Subject[];
  readonly run: (options: SuiteOptions) => Promise<Result>;
  readonly targets: (rows: readonly Row[]) => Target[];
  readonly plot?: (path: string, report: Report) => void;
}

const suites: Record<string, Suite> = {
  ipc: { subjects, run: runIpc, targets: ipcTargets, plot: plotIpc },
  patterns: {
    subjects: [...requestSubjects, ...topicSubjects, ...pythonSubjects, ...forkSubjects],
    run: runPatterns,
    targets: patternTargets,
  },
  offer: { subjects: giveSubjects, run: runOffers, targets: offerTargets, plot: plotOffers },
};

async function run(args: Arguments): Promise<void> {
  const suite = suites[args.suite];
  const missing = await buildPeers(args.subjects);
  if (missing.has('c')) throw new Error(`the C programs are the measure: ${missing.get('c')}`);
  const progress = process.stderr.isTTY === true;
  const { rows, controlNs, runs, discarded } = await suite.run({
    ...args,
    missing,
    onProgress: (text) => {
      process.stderr.write(progress ? `\r\x1b[K${text}` : `${text}\n`);
    },
  });
  if (progress) process.stderr.write('\r\x1b[K');
  const machine = { ...describeMachine(), controlNs: Math.round(controlNs) };
  const report: Report = { suite: args.suite, machine, rows };
  console.log(formatTable(rows));
  console.log(trust(controlNs, runs, discarded));
  const targets = suite.targets(rows);
  if (targets.length > 0) console.log(formatTargets(targets));
  if (args.json !== undefined) writeJson(args.json, report);
  if (args.plot !== undefined) suite.plot?.(args.plot, report);
}

/** How far the figures can be believed. */
function trust(controlNs: number, runs: number, discarded: number): string {
  // The relay's rows have no control: each way's whole job is one process after the other.
  if (runs === 0) return '';
  const control = `The C control took ${formatValue(controlNs, 'ns')} a round trip`;
  const share = discarded / runs;
  const advice = share > 0.5 ? ': the machine was busy, so measure again when it is not' : '';
  return `${control}; ${discarded} of ${runs} runs were disturbed${advice}.\n`;
}

try {
  await run(parse());
} catch (error) {
  console.error((error as Error).message);
  process.exit(1);
}
