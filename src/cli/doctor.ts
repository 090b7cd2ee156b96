// `ukshm doctor`: what ukshm can use here, for this user, this kernel and this container.
import { existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import type { Command } from 'commander';
import type { Feature } from '../sys/probe.js';
import { buildFeature } from './build.js';
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
    return [...probe(), buildFeature()];
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_UKSHM_ADDON') throw error;
    const why = (error as Error).message;
    return [{ name: 'addon', available: false, why, cure: 'npx ukshm build' }, buildFeature()];
  }
}

interface Surroundings {
  readonly kernel: string;
  readonly node: string;
  readonly platform: string;
  readonly uid: number;
  /** Which kind of container, if it says so. */
  readonly container?: string;
}

function surroundings(): Surroundings {
  const uid = process.geteuid?.() ?? 0;
  const platform = `linux-${process.arch}`;
  return { kernel: release(), node: process.version, platform, uid, container: container() };
}

/** The marks that the usual container managers leave. */
function container(): string | undefined {
  if (existsSync('/.dockerenv')) return 'docker';
  if (existsSync('/run/.containerenv')) return 'podman';
  if (existsSync('/run/systemd/container')) {
    return readFileSync('/run/systemd/container', 'utf8').trim();
  }
  return process.env.KUBERNETES_SERVICE_HOST === undefined ? undefined : 'kubernetes';
}

function report(features: readonly Feature[]): string {
  const style = styleFor(process.stdout);
  const { kernel, node, platform, uid, container } = surroundings();
  const inside = container === undefined ? '' : `, in a container (${container})`;
  const heading = `Linux ${kernel}, ${platform}, Node ${node}, user ${uid}${inside}`;
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
