// Draws a report of the suite "ipc" or "offer" as SVG: times and throughput against size, both axes
// logarithmic, each line named where it ends. Reads rows by their names, so that a report read
// back from JSON can be drawn as well.
import { writeFileSync } from 'node:fs';
import type { Report, Row } from './report.js';

interface Point {
  readonly size: number;
  readonly value: number;
}

interface Series {
  readonly label: string;
  readonly color: string;
  readonly dashed: boolean;
  readonly points: readonly Point[];
}

interface Panel {
  readonly title: string;
  readonly subtitle: string;
  readonly left: number;
  readonly series: readonly Series[];
  readonly formatTick: (value: number) => string;
}

const WIDTH = 1410;
const HEIGHT = 640;
const TOP = 112;
const BOTTOM = 560;
const PLOT_WIDTH = 430;
/** The longest name of a single panel needs a little more. */
const LABEL_EXTRA = 60;
/** Room for the names at the right of a panel. */
const LABEL_GAP = 16;
const LABEL_LINE = 17;

const COLORS: Readonly<Record<string, string>> = {
  ukshm: '#c2185b',
  'C, shared memory': '#222222',
  'C, Unix socket': '#8d6e63',
  iceoryx2: '#1e88e5',
  'Aeron IPC': '#00897b',
  'Node net': '#f57c00',
  'child.send': '#7e57c2',
  postMessage: '#558b2f',
  zeromq: '#b0a000',
};

export function plotIpc(path: string, report: Report): void {
  writeFileSync(path, drawIpc(report));
}

export function drawIpc(report: Report): string {
  return draw('Between two processes on one machine', report, [
    {
      title: 'Round trip',
      subtitle: 'median, lower is better; dashed: both sides asleep while they wait',
      left: 76,
      series: latencySeries(report.rows),
      formatTick: formatTime,
    },
    {
      title: 'One way',
      subtitle: 'payload written and read in full, higher is better; dashed: each published alone',
      left: 776,
      series: throughputSeries(report.rows),
      formatTick: formatRate,
    },
  ]);
}

const GIVING_COLORS: Readonly<Record<string, string>> = {
  'ukshm offer': '#c2185b',
  'ukshm channel': '#1e88e5',
  'ukshm channel, copied': '#00897b',
  'C, memfd passed': '#222222',
  'C, Unix socket': '#8d6e63',
  'C, vmsplice': '#7e57c2',
  'Node net': '#f57c00',
};

/** The suite "offer": moving pages against copying, by size. */
export function plotOffers(path: string, report: Report): void {
  const copies = ['ukshm channel, copied', 'C, Unix socket', 'C, vmsplice', 'Node net'];
  const series = Object.entries(GIVING_COLORS).map(([label, color]) => ({
    label,
    color,
    dashed: copies.includes(label),
    points: pointsOf(report.rows, label, /^hand-over (.+), read$/),
  }));
  const panel = {
    title: 'Bytes handed over, and read in full by the receiver',
    subtitle: 'median until the receiver has answered, lower is better; dashed: by copying',
    left: 76,
    series: series.filter(({ points }) => points.length > 0),
    formatTick: formatTime,
  };
  writeFileSync(path, draw('From which size does moving pages beat copying?', report, [panel]));
}

function draw(title: string, report: Report, panels: readonly Panel[]): string {
  const drawn = panels.filter((panel) => panel.series.length > 0);
  const width = drawn.length > 1 ? WIDTH : WIDTH / 2 + LABEL_EXTRA;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13">`,
    `<title>${title}</title>`,
    `<rect width="${width}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(76, 36, title, 'font-size="20" font-weight="bold"'),
    text(76, HEIGHT - 18, describe(report), 'fill="#777777" font-size="12"'),
    ...drawn.map(drawPanel),
    '</svg>',
    '',
  ].join('\n');
}

function describe(report: Report): string {
  const { cpu, cpus, kernel, node, date } = report.machine;
  const day = String(date ?? '').slice(0, 10);
  return `${cpu}, ${cpus} CPUs, Linux ${kernel}, Node ${node}, ${day}`;
}

// Rows to lines ----------------------------------------------------------------------------------

function sizeOf(words: string): number {
  const factors: Record<string, number> = { B: 1, KiB: 1024, MiB: 1 << 20 };
  const [, digits, unit] = /^([\d ]+) (B|KiB|MiB)$/.exec(words) ?? [];
  return Number(digits.replaceAll(' ', '')) * factors[unit];
}

/** Points of the rows whose name matches; the first group of `pattern` is the size. */
function pointsOf(rows: readonly Row[], subject: string, pattern: RegExp): Point[] {
  const points: Point[] = [];
  for (const row of rows) {
    const [, words] = pattern.exec(row.name) ?? [];
    if (words === undefined || row.subject !== subject || row.value === null) continue;
    const size = sizeOf(words);
    const value = row.unit === 'messages/s' ? row.value * size : row.value;
    points.push({ size, value: row.unit === 'GB/s' ? value * 1e9 : value });
  }
  return points.sort((a, b) => a.size - b.size);
}

function latencySeries(rows: readonly Row[]): Series[] {
  return Object.entries(COLORS).flatMap(([subject, color]) => {
    const spinning = pointsOf(rows, subject, /^round trip (.+), spinning$/);
    const asleep = pointsOf(rows, subject, /^round trip (.+), asleep$/);
    const both = spinning.length > 0 && asleep.length > 0;
    return [
      { label: subject, color, dashed: false, points: spinning },
      { label: both ? `${subject}, asleep` : subject, color, dashed: true, points: asleep },
    ].filter((series) => series.points.length > 0);
  });
}

/** The best way of each subject, and of ukshm also one message at a time. */
function throughputSeries(rows: readonly Row[]): Series[] {
  return Object.entries(COLORS).flatMap(([subject, color]) => {
    const batched = pointsOf(rows, subject, /^one way ([^,]+)(?:, batched)?$/);
    const unbatched = pointsOf(rows, subject, /^one way ([^,]+), unbatched$/);
    const small = batched.filter((point) => point.size <= 4096);
    const best = small.length > 0 ? batched : [...unbatched, ...batched];
    const lines: Series[] = [{ label: subject, color, dashed: false, points: best }];
    if (subject === 'ukshm' && small.length > 0) {
      lines.push({ label: 'ukshm, one by one', color, dashed: true, points: unbatched });
    }
    return lines.filter((series) => series.points.length > 0);
  });
}

// Lines to SVG -----------------------------------------------------------------------------------

function drawPanel(panel: Panel): string {
  const all = panel.series.flatMap((series) => series.points);
  const x = logScale(extent(all.map((p) => p.size)), panel.left, panel.left + PLOT_WIDTH);
  const y = logScale(decades(extent(all.map((p) => p.value))), BOTTOM, TOP);
  const right = panel.left + PLOT_WIDTH;
  return [
    text(panel.left, 72, panel.title, 'font-size="16" font-weight="bold"'),
    text(panel.left, 92, panel.subtitle, 'fill="#777777" font-size="12"'),
    ...yAxis(panel, y, right),
    ...xAxis(all, x),
    // Ours on top of all others.
    ...[...panel.series].reverse().map((series) => drawSeries(series, x, y)),
    ...drawLabels(panel.series, x, y, right),
  ].join('\n');
}

type Scale = ((value: number) => number) & { readonly domain: readonly [number, number] };

function logScale(domain: readonly [number, number], from: number, to: number): Scale {
  const [low, high] = domain.map(Math.log10);
  const span = high - low || 1;
  const scale = (value: number): number => from + ((Math.log10(value) - low) / span) * (to - from);
  return Object.assign(scale, { domain });
}

function extent(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

function decades([low, high]: readonly [number, number]): [number, number] {
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high))];
}

function yAxis(panel: Panel, y: Scale, right: number): string[] {
  const lines: string[] = [];
  for (let value = y.domain[0]; value <= y.domain[1] * 1.001; value *= 10) {
    const at = round(y(value));
    lines.push(`<path d="M${panel.left} ${at}H${right}" stroke="#e4e4e4"/>`);
    lines.push(
      text(panel.left - 8, at + 4, panel.formatTick(value), 'text-anchor="end" fill="#555555"'),
    );
  }
  return lines;
}

function xAxis(points: readonly Point[], x: Scale): string[] {
  const sizes = [...new Set(points.map((point) => point.size))].sort((a, b) => a - b);
  return sizes.flatMap((size) => {
    const at = round(x(size));
    return [
      `<path d="M${at} ${BOTTOM}v5" stroke="#999999"/>`,
      text(at, BOTTOM + 22, formatSize(size), 'text-anchor="middle" fill="#555555" font-size="12"'),
    ];
  });
}

function drawSeries(series: Series, x: Scale, y: Scale): string {
  const at = series.points.map((point) => [round(x(point.size)), round(y(point.value))]);
  const path = at.map(([px, py], i) => `${i === 0 ? 'M' : 'L'}${px} ${py}`).join('');
  const strong = series.label.startsWith('ukshm');
  const dash = series.dashed ? ' stroke-dasharray="6 4"' : '';
  const line = `<path d="${path}" fill="none" stroke="${series.color}" stroke-width="${strong ? 3 : 1.6}"${dash} stroke-linejoin="round"/>`;
  const radius = strong ? 4 : 2.6;
  const dots = at.map(
    ([px, py]) => `<circle cx="${px}" cy="${py}" r="${radius}" fill="${series.color}"/>`,
  );
  return [line, ...dots].join('');
}

/** Names at the right edge, moved apart where lines end close to each other. */
function drawLabels(series: readonly Series[], x: Scale, y: Scale, right: number): string[] {
  const ends = series
    .map((one) => ({ one, last: one.points[one.points.length - 1] }))
    .map(({ one, last }) => ({ one, start: x(last.size), end: y(last.value) }))
    .sort((a, b) => a.end - b.end);
  const heights = spread(
    ends.map(({ end }) => end),
    LABEL_LINE,
    TOP,
    BOTTOM,
  );
  return ends.flatMap(({ one, start, end }, i) => {
    const strong = one.label.startsWith('ukshm') ? ' font-weight="bold"' : '';
    // A line that ends early is led to its name by dots.
    const early = start < right - 1 ? `M${round(start + 6)} ${round(end)}H${right}` : '';
    const dots = `<path d="${early}" stroke="${one.color}" stroke-dasharray="1 4" opacity="0.8"/>`;
    const leader = `<path d="M${right + 5} ${round(end)}L${right + LABEL_GAP + 14} ${round(heights[i])}" stroke="${one.color}" stroke-width="0.8" opacity="0.6" fill="none"/>`;
    const dash = one.dashed ? ' stroke-dasharray="5 3"' : '';
    const key = `<path d="M${right + LABEL_GAP + 14} ${round(heights[i])}h20" stroke="${one.color}" stroke-width="2"${dash}/>`;
    const name = text(
      right + LABEL_GAP + 40,
      heights[i] + 4,
      one.label,
      `fill="${one.color}"${strong}`,
    );
    return [early === '' ? '' : dots, leader, key, name];
  });
}

/** Keeps the order, a distance of `gap`, and the bounds; moves each as little as that allows. */
export function spread(
  wanted: readonly number[],
  gap: number,
  low: number,
  high: number,
): number[] {
  const at: number[] = [];
  for (const value of wanted) {
    const floor = at.length === 0 ? low : at[at.length - 1] + gap;
    at.push(Math.max(value, floor));
  }
  let ceiling = high;
  for (let i = at.length - 1; i >= 0; i--) {
    at[i] = Math.min(at[i], ceiling);
    ceiling = at[i] - gap;
  }
  return at;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escaped}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function formatSize(size: number): string {
  if (size >= 1 << 20) return `${size >> 20} MiB`;
  if (size === 1000) return '1 kB';
  return size >= 4096 ? `${size >> 10} KiB` : `${size} B`;
}

function formatTime(ns: number): string {
  if (ns >= 1e6) return `${ns / 1e6} ms`;
  return ns >= 1e3 ? `${ns / 1e3} µs` : `${ns} ns`;
}

function formatRate(bytes: number): string {
  return bytes >= 1e9 ? `${bytes / 1e9} GB/s` : `${bytes / 1e6} MB/s`;
}
