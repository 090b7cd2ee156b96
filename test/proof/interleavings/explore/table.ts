// A schedule as a table that a person reads: party, operation, word, value, file and line.
import type { Run } from './execution.js';
import { siteAt } from './runtime.js';
import type { Event, World } from './world.js';

const STEPS_SHOWN = 400;

/** What went wrong, and all that led to it. */
export function tableOf(run: Run): string {
  const { world, schedule } = run;
  const rows = world.trace.slice(-STEPS_SHOWN).map((event) => rowOf(event, world));
  const head = ['party', 'operation', 'word', 'value', 'where'];
  const widths = head.map((name, i) =>
    Math.max(name.length, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i] as number))
      .join('  ')
      .trimEnd();
  const skipped = world.trace.length - rows.length;
  return [
    `${world.failure?.stack ?? 'no failure'}`,
    `schedule ${encodeSchedule(schedule)}`,
    ...(skipped > 0 ? [`(${skipped} steps before)`] : []),
    line(head),
    ...rows.map(line),
  ].join('\n');
}

function rowOf({ party, op }: Event, world: World): string[] {
  const memory = world.memories[op.memory];
  const word = memory === undefined ? '' : `${memory.name}.${memory.nameOf(op.from)}`;
  const value = op.value === undefined ? '' : shown(op.value);
  const { place, text } = siteAt(op.site);
  return [world.nameOf(party), op.kind, word, value, place === '' ? '' : `${place}  ${text}`];
}

/** A value, or the first of those that were copied. */
function shown(value: unknown): string {
  if (!ArrayBuffer.isView(value) && !Array.isArray(value)) return String(value);
  const values = Array.from(value as Uint8Array);
  return `[${values.slice(0, 8).join(' ')}${values.length > 8 ? ' …' : ''}]`;
}

/** A schedule in short: each actor's number, and how often in a row it goes on. */
export function encodeSchedule(schedule: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < schedule.length; ) {
    let end = i;
    while (schedule[end] === schedule[i]) end++;
    parts.push(end - i === 1 ? `${schedule[i]}` : `${schedule[i]}x${end - i}`);
    i = end;
  }
  return parts.join(',');
}

export function decodeSchedule(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [actor = '', times = '1'] = part.split('x');
    return new Array<number>(Number(times)).fill(Number(actor));
  });
}
