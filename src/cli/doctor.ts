// `ukshm doctor`: what ukshm can use here, for this user, this kernel and this container.
import { release } from 'node:os';
import type { Command } from 'commander';
import type { Feature } from '../sys/probe.js';
import { print, printJson } from './print.js';
import { styleFor, wrap } from './text.js';

const TEXT_WIDTH = 72;
const INDENT = '      ';

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('show what ukshm can use here: there or not, why, and how to get it')
    .option('--json', 'report in JSON')
    .addHelpText('after', '\nExit status: 0, whatever is missing: ukshm works without it.')
    .action(async ({ json }: { json?: true }) => {
      const features = await examine();
      if (json) printJson({ ...surroundings(), features });
      else print(report(features));
    });
}

/** Loads the addon only now: where it does not fit, that is the finding. */
async function examine(): Promise<readonly Feature[]> {
  try {
    const { probe } = await import('../sys/probe.js');
    return probe();
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_UKSHM_ADDON') throw error;
    const why = (error as Error).message;
    return [{ name: 'addon', available: false, why, cure: 'npx ukshm build' }];
  }
}

function surroundings(): Record<string, string> {
  const user = `${process.geteuid?.() ?? ''}`;
  return { kernel: release(), node: process.version, platform: `linux-${process.arch}`, user };
}

function report(features: readonly Feature[]): string {
  const style = styleFor(process.stdout);
  const { kernel, node, platform, user } = surroundings();
  const heading = `Linux ${kernel}, ${platform}, Node ${node}, user ${user}`;
  const blocks = features.map(({ name, available, why, cure }) => {
    const mark = available ? style.good('yes') : style.bad('no ');
    const lines = [`${mark}   ${style.bold(name)}`];
    if (why) lines.push(INDENT + wrap(why, TEXT_WIDTH, INDENT));
    if (!available && cure) lines.push(INDENT + wrap(`→ ${cure}`, TEXT_WIDTH, `${INDENT}  `));
    return lines.join('\n');
  });
  const there = features.filter(({ available }) => available).length;
  return `${heading}\n\n${blocks.join('\n')}\n\n${there} of ${features.length} are there.`;
}
