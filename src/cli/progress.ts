// A progress bar on a terminal, and nothing elsewhere.
import { formatBytes } from './text.js';

const BAR_WIDTH = 28;

/** One line on standard error that is drawn over again. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #startMs = performance.now();
  #drawn = false;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
  }

  /** Draws how far it is; without a total, only how much and how fast. */
  update(bytes: number, totalBytes: number | undefined): void {
    const seconds = (performance.now() - this.#startMs) / 1000;
    const rate = `${formatBytes(bytes / Math.max(seconds, 1e-3))}/s`;
    if (totalBytes === undefined || totalBytes === 0) {
      this.text(`${formatBytes(bytes)}  ${rate}`);
      return;
    }
    // The file may have grown since it was looked at.
    const share = Math.min(1, bytes / totalBytes);
    const filled = Math.round(share * BAR_WIDTH);
    const bar = '█'.repeat(filled) + '░'.repeat(BAR_WIDTH - filled);
    const percent = `${Math.floor(share * 100)} %`.padStart(5);
    this.text(`${bar} ${percent}  ${formatBytes(bytes)} of ${formatBytes(totalBytes)}  ${rate}`);
  }

  /** Draws a line of text in place of the bar. */
  text(line: string): void {
    if (!this.#stream.isTTY) return;
    this.#drawn = true;
    // 0 on a terminal that does not know its width.
    const columns = this.#stream.columns || 80;
    this.#stream.write(`\r\x1b[2K${[...line].slice(0, columns - 1).join('')}`);
  }

  /** Wipes the line, so that what is printed next begins at the left. */
  clear(): void {
    if (this.#drawn) this.#stream.write('\r\x1b[2K');
    this.#drawn = false;
  }
}
