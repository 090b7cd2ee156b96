// The rows of a suite: their form (which later suites keep), the table, the file of JSON.
import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';

export interface Row {
  readonly name: string;
  readonly subject: string;
  readonly unit: string;
  /** What the row is about: a median for times, the median run for rates. */
  readonly value: number | null;
  readonly p50: number | null;
  readonly p99: number | null;
  readonly p999: number | null;
  /** The worst event for times, the best run for rates. */
  readonly max: number | null;
  /** Events measured: round trips, messages, connections. */
  readonly n: number;
  /** Whether a side that waited kept its CPU busy. */
  readonly spun: boolean;
  readonly note: string;
}

export interface Report {
  readonly suite: string;
  readonly machine: Record<string, string | number>;
  readonly rows: Row[];
}

export function describeMachine(): Record<string, string | number> {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cpus: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    arch: process.arch,
    node: process.version,
    date: new Date().toISOString(),
  };
}

export function writeJson(path: string, report: Report): void {
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
}

/** Three significant digits, with the prefix that a person would use. */
export function formatValue(value: number | null, unit: string): string {
  if (value === null) return '-';
  if (unit === 'ns') {
    if (value >= 1e6) return `${digits(value / 1e6)} ms`;
    return value >= 1e3 ? `${digits(value / 1e3)} µs` : `${digits(value)} ns`;
  }
  if (unit === 'messages/s') {
    return value >= 1e6 ? `${digits(value / 1e6)} M/s` : `${digits(value / 1e3)} k/s`;
  }
  return `${digits(value)} ${unit}`;
}

function digits(value: number): string {
  if (value === 0) return '0';
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 4));
}

const COLUMNS = ['', 'median', 'p99', 'p99.9', 'max', 'n', ''] as const;

/** One block a row name, one line a subject, the best first. */
export function formatTable(rows: readonly Row[]): string {
  const cells: string[][] = [];
  const blocks = new Map<string, Row[]>();
  for (const row of rows) blocks.set(row.name, [...(blocks.get(row.name) ?? []), row]);
  for (const [name, block] of blocks) {
    cells.push([name, ...COLUMNS.slice(1)]);
    for (const row of sortByMerit(block)) cells.push(cellsOf(row));
    cells.push([]);
  }
  const widths = COLUMNS.map((_, i) => Math.max(...cells.map((line) => line[i]?.length ?? 0)));
  const lines = cells.map((line) =>
    line.map((cell, i) => (i === 0 || i === 6 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))),
  );
  return lines.map((line) => line.join('  ').trimEnd()).join('\n');
}

function sortByMerit(block: readonly Row[]): Row[] {
  const rate = block.some((row) => row.unit.endsWith('/s'));
  const merit = (row: Row): number => {
    if (row.value === null) return Number.POSITIVE_INFINITY;
    return rate ? -row.value : row.value;
  };
  return [...block].sort((a, b) => merit(a) - merit(b));
}

function cellsOf(row: Row): string[] {
  const show = (value: number | null): string => formatValue(value, row.unit);
  const remarks = [row.spun ? 'spun' : '', row.note].filter((text) => text !== '').join('; ');
  const spread = [row.p99, row.p999, row.max].map(show);
  return [`  ${row.subject}`, show(row.value), ...spread, String(row.n), remarks];
}
