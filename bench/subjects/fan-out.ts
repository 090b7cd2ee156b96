// One publishes, a number of readers receive every message: what all ways of doing so share. The
// program starts its readers itself (`connect` alone is run); the job's name ends in their number.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import {
  END_WORD,
  type Job,
  MESSAGES_MIN,
  Payload,
  parseJob,
  sayRate,
  wrongWord,
} from './common.js';

/** How many read. */
export function readerCount(job: Job): number {
  return Number(job.name.split('-').pop());
}

/** What a reader and the publisher tell each other, beside the messages. */
type Word = 'ready' | 'ended';

/** The publisher's view of its readers. */
export class Readers {
  readonly #children: ChildProcess[] = [];
  readonly #ended: Promise<unknown>[] = [];
  #heard: Word[] = [];
  #wake: () => void = () => {};

  /** Starts `count` readers: this program again, in the role 'listen'. */
  constructor(script: string, count: number) {
    const args = ['listen', ...process.argv.slice(process.argv.indexOf('connect') + 1)];
    const before = process.argv.slice(2, process.argv.indexOf('connect'));
    for (let i = 0; i < count; i++) {
      const child = fork(script, [...before, ...args]);
      child.on('message', (word: Word) => {
        this.#heard.push(word);
        this.#wake();
      });
      this.#children.push(child);
      this.#ended.push(once(child, 'exit'));
    }
  }

  /** Resolves when every reader has said `word` once more. */
  async all(word: Word): Promise<void> {
    const count = this.#children.length;
    while (this.#heard.filter((heard) => heard === word).length < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#heard = this.#heard.filter((heard) => heard !== word);
  }

  async close(): Promise<void> {
    for (const child of this.#children) if (child.connected) child.disconnect();
    await Promise.all(this.#ended);
  }
}

/** A reader's side: counts, checks, and says when a phase has ended. */
export class Reader {
  readonly #copy: Payload;
  #expected = 0;

  constructor(size: number) {
    this.#copy = new Payload(size);
  }

  ready(): void {
    process.send?.('ready' satisfies Word);
  }

  /** Reads a message in full. */
  take(bytes: Uint8Array): void {
    this.#copy.bytes.set(bytes);
    const { word } = this.#copy;
    if (word === END_WORD) {
      this.#expected = 0;
      process.send?.('ended' satisfies Word);
    } else if (word !== this.#expected++) {
      throw wrongWord(this.#expected - 1, word);
    }
  }
}

/** Publishes for the warm-up, then for the measurement; prints the rate at which all have read. */
export async function runPublisher(
  readers: Readers,
  publish: (bytes: Uint8Array) => Promise<unknown> | undefined,
  job: Job = parseJob(),
): Promise<void> {
  const source = new Payload(job.size);
  for (const [phase, forMs] of [job.warmMs, job.runMs].entries()) {
    const start = performance.now();
    let sequence = 0;
    while (sequence < MESSAGES_MIN || performance.now() - start < forMs) {
      source.word = sequence++;
      const waits = publish(source.bytes);
      if (waits !== undefined) await waits;
    }
    source.word = END_WORD;
    await publish(source.bytes);
    await readers.all('ended');
    if (phase === 1) sayRate(sequence, (performance.now() - start) / 1e3);
  }
}
