// Words and figures for people: units, tables, colours where a terminal shows them.

/** Decimal units, as disks and GB/s use them: `98.9 MB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let index = 0;
  while (value >= 999.5 && index < units.length - 1) {
    value /= 1000;
    index += 1;
  }
  return `${index === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[index]}`;
}

/** Binary units, as memory uses them: `4 MiB`, `16.5 KiB`. */
export function formatMemory(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[index]}`;
}

/** A duration with three digits or so: `0.42 ms`, `12 ms`, `3.1 s`. */
export function formatMs(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  if (milliseconds >= 10) return `${milliseconds.toFixed(0)} ms`;
  return `${milliseconds.toFixed(milliseconds >= 1 ? 1 : 2)} ms`;
}

/** How a column stands. */
export type Align = 'left' | 'right';

/**
 * A table with two spaces between its columns; no line ends in a space.
 *
 * @param rows - the first is the heading; all have as many cells as `align`.
 */
export function table(rows: readonly (readonly string[])[], align: readonly Align[]): string {
  const widths = align.map((_, column) => Math.max(...rows.map((row) => widthOf(row[column]))));
  const lines = rows.map((row) => {
    const cells = row.map((cell, column) => {
      const gap = ' '.repeat(widths[column] - widthOf(cell));
      return align[column] === 'right' ? gap + cell : cell + gap;
    });
    return cells.join('  ').trimEnd();
  });
  return lines.join('\n');
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: it is what a terminal's colours begin with.
const COLOURS = /\x1b\[\d+m/g;

function widthOf(text: string): number {
  return [...text.replace(COLOURS, '')].length;
}

/** Marks for a stream; plain text where it is no terminal, or NO_COLOR is set. */
export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
}

export function styleFor(stream: NodeJS.WriteStream): Style {
  const coloured = stream.isTTY === true && process.env.NO_COLOR === undefined;
  const mark = (on: number, off: number): ((text: string) => string) =>
    coloured ? (text) => `\x1b[${on}m${text}\x1b[${off}m` : (text) => text;
  return { bold: mark(1, 22), dim: mark(2, 22), good: mark(32, 39), bad: mark(31, 39) };
}

/** Breaks text at spaces, after at most `width` characters, and indents all lines but the first. */
export function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.join(`\n${indent}`);
}
