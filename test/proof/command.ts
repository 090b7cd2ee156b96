// `npm run proof`: tries all that can be tried, and prints a report with figures and seeds.
import { execFileSync } from 'node:child_process';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { ROOT } from '../house/root.js';
import { interleavings, replayOne } from './interleavings/section.js';
import type { ProofOptions, Section } from './section.js';

const SECTIONS: readonly Section[] = [interleavings];

const HELP = `npm run proof -- [SECTION…] [options]

Sections (all, if none is named):
${SECTIONS.map(({ name, title }) => `  ${name.padEnd(16)} ${title}`).join('\n')}

  --quick          some minutes instead of hours
  --seconds N      how long each search, or each run that lasts as long as it is given, may take
  --seed N         the first seed of what is random (usual: 1)
  --only WORD      only what has WORD in its name
  --replay WHAT    one schedule again, as a table: seed17, or a schedule as it was printed; with --only
  --bug WORD       the same with a planted bug
  --help           this text

docs/PROOF.md says what is tried and how; the last long run that is kept is docs/PROOF-RUN.txt.`;

interface Asked extends ProofOptions {
  readonly sections: readonly Section[];
  readonly help: boolean;
  readonly bug: string | undefined;
  readonly replay: string | undefined;
}

function askedBy(args: readonly string[]): Asked {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      seed: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
      seconds: { type: 'string' },
      bug: { type: 'string' },
      replay: { type: 'string' },
    },
  });
  const { quick, help, only, bug, replay } = values;
  const seconds = values.seconds === undefined ? undefined : count('--seconds', values.seconds);
  const sections = positionals.map((word) => {
    const section = SECTIONS.find(({ name }) => name === word);
    if (section === undefined) throw new Error(`no section '${word}'; --help lists them`);
    return section;
  });
  return {
    quick,
    help,
    firstSeed: count('--seed', values.seed),
    only,
    seconds,
    bug,
    replay,
    sections: sections.length > 0 ? sections : SECTIONS,
  };
}

function count(option: string, text: string): number {
  const value = Number(text);
  if (text === '' || !(value > 0))
    throw new Error(`${option} takes a number above 0, not '${text}'`);
  return value;
}

function commit(): string {
  try {
    const args = ['describe', '--always', '--dirty'];
    return execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
  } catch {
    return 'no repository';
  }
}

async function main(args: readonly string[]): Promise<number> {
  const asked = askedBy(args);
  if (asked.help) {
    console.log(HELP);
    return 0;
  }
  if (asked.replay !== undefined) {
    return (await replayOne(asked.only, asked.bug, asked.replay)) ? 0 : 1;
  }
  const start = performance.now();
  console.log(
    `ukshm proof${asked.quick ? ' --quick' : ''}: commit ${commit()}, seeds from ${asked.firstSeed}, ` +
      `Node ${process.versions.node}, Linux ${release()}, ${cpus().length} CPUs`,
  );
  const failed: string[] = [];
  for (const section of asked.sections) {
    console.log(`\n${section.title}`);
    const sectionStart = performance.now();
    if (!(await section.run(asked))) failed.push(section.name);
    console.log(`(${((performance.now() - sectionStart) / 1000).toFixed(0)} s)`);
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(
    `\n${failed.length === 0 ? 'all is well' : `FAILED: ${failed.join(', ')}`}, ${seconds} s`,
  );
  return failed.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
