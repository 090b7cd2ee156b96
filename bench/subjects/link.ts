// Round trips and one-way streams over anything of Node that delivers messages by callback. The
// programs in this folder only make such a link.
import {
  BATCH,
  clockInterval,
  END_WORD,
  isRoundTrip,
  type Job,
  MESSAGES_MIN,
  Payload,
  Samples,
  say,
  sayRate,
  wrongWord,
} from './common.js';

/** Grants the sender another half window; only on links without back-pressure of their own. */
const CREDIT_WORD = -2;

export interface Link {
  /** Sends a copy of `bytes`. `false`: wait for `writable()` before the next. */
  send(bytes: Uint8Array): boolean;
  writable(): Promise<void>;
  /** Collects what is sent until `uncork`, where the link can. */
  cork?(): void;
  uncork?(): void;
  /** Set by `runLink`; the bytes are valid during the call. */
  onMessage: (bytes: Uint8Array) => void;
  close(): void;
  /** The link never says "full": count what is under way. */
  readonly needsCredit: boolean;
}

/** Runs this side's part of `job`, then closes the link. */
export async function runLink(job: Job, link: Link): Promise<void> {
  if (isRoundTrip(job)) {
    await (job.listens ? echo(job, link) : ping(job, link));
  } else if (job.listens) {
    await receive(job, link);
  } else {
    await send(job, link);
  }
  link.close();
}

function wordOf(bytes: Uint8Array): number {
  const at = bytes.length - 4;
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}

function echo(job: Job, link: Link): Promise<void> {
  const copy = new Payload(job.size);
  const source = new Payload(job.size);
  return new Promise((resolve) => {
    link.onMessage = (bytes) => {
      copy.bytes.set(bytes);
      const word = copy.word;
      if (word === END_WORD) return resolve();
      source.word = word;
      link.send(source.bytes);
    };
  });
}

function ping(job: Job, link: Link): Promise<void> {
  const source = new Payload(job.size);
  const copy = new Payload(job.size);
  const samples = new Samples();
  let sequence = 0;
  let measuring = false;
  let until = performance.now() + job.warmMs;
  let start = 0;
  const sendNext = (): void => {
    source.word = ++sequence;
    start = performance.now();
    link.send(source.bytes);
  };
  return new Promise((resolve, reject) => {
    link.onMessage = (bytes) => {
      copy.bytes.set(bytes);
      const end = performance.now();
      if (copy.word !== sequence) return reject(wrongWord(sequence, copy.word));
      if (measuring) samples.add(end - start);
      if (end < until && !samples.full) return sendNext();
      if (!measuring) {
        measuring = true;
        until = end + job.runMs;
        return sendNext();
      }
      source.word = END_WORD;
      link.send(source.bytes);
      say(samples.report());
      resolve();
    };
    sendNext();
  });
}

/** Two phases, each answered when its end has arrived. */
function receive(job: Job, link: Link): Promise<void> {
  const copy = new Payload(job.size);
  const answer = new Payload(4);
  const creditEvery = windowFor(job.size) >> 1;
  let expected = 0;
  let phases = 2;
  return new Promise((resolve, reject) => {
    link.onMessage = (bytes) => {
      copy.bytes.set(bytes);
      const word = copy.word;
      if (word === expected) {
        expected++;
        if (link.needsCredit && expected % creditEvery === 0) {
          answer.word = CREDIT_WORD;
          link.send(answer.bytes);
        }
        return;
      }
      if (word !== END_WORD) return reject(wrongWord(expected, word));
      expected = 0;
      answer.word = END_WORD;
      link.send(answer.bytes);
      if (--phases === 0) resolve();
    };
  });
}

/** Messages under way on a link that needs credit: some 4 MiB, at least 2. */
function windowFor(size: number): number {
  return Math.max(2, Math.min(1024, (4 << 20) / size) & ~1);
}

async function send(job: Job, link: Link): Promise<void> {
  const sender = new Sender(job, link);
  await sender.phase(job.warmMs);
  const start = performance.now();
  const sent = await sender.phase(job.runMs);
  sayRate(sent, (performance.now() - start) / 1e3);
}

class Sender {
  readonly #job: Job;
  readonly #link: Link;
  readonly #source: Payload;
  readonly #window: number;
  #credit = 0;
  #ended = false;
  #wake: () => void = () => {};

  constructor(job: Job, link: Link) {
    this.#job = job;
    this.#link = link;
    this.#source = new Payload(job.size);
    this.#window = windowFor(job.size);
    link.onMessage = (bytes) => {
      if (wordOf(bytes) === END_WORD) this.#ended = true;
      else this.#credit += this.#window >> 1;
      this.#wake();
    };
  }

  /** Sends for `forMs`, then waits until the other side has all of it. */
  async phase(forMs: number): Promise<number> {
    const batch = this.#job.name === 'one-way-batched' ? BATCH : 1;
    const interval = Math.min(clockInterval(this.#job.size), 128);
    const until = performance.now() + forMs;
    let sequence = 0;
    this.#credit = this.#window;
    this.#ended = false;
    do {
      for (let i = 0; i < interval; i += batch) {
        if (this.#link.needsCredit) while (this.#credit === 0) await this.#woken();
        if (!this.#sendBatch(sequence, batch)) await this.#link.writable();
        sequence += batch;
      }
    } while (sequence < MESSAGES_MIN || performance.now() < until);
    this.#source.word = END_WORD;
    this.#link.send(this.#source.bytes);
    while (!this.#ended) await this.#woken();
    return sequence;
  }

  #sendBatch(sequence: number, batch: number): boolean {
    let writable = true;
    if (batch > 1) this.#link.cork?.();
    for (let i = 0; i < batch; i++) {
      this.#source.word = sequence + i;
      this.#credit--;
      writable = this.#link.send(this.#source.bytes);
    }
    if (batch > 1) this.#link.uncork?.();
    return writable;
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
