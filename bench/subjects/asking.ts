// Requests with a number of them under way, over anything that answers. The programs in this folder
// and in bench/peers only make the way; the answer to a request is its own bytes.
import { type Job, Payload, Samples, say, wrongWord } from './common.js';

/** Sends one request and resolves with the bytes of its reply, valid until the next turn. */
export type Ask = (body: Uint8Array) => Promise<Uint8Array>;

/** How many requests are under way: the last part of the job's name. */
export function inFlight(job: Job): number {
  return Number(job.name.split('-').pop());
}

/** The job's name says whether whoever waits looks on. */
export function isSpinning(job: Job): boolean {
  return job.name.includes('spinning');
}

/**
 * Asks for the warm-up, then for the measurement; prints the rate and the times.
 * @param replyBytes - how long the replies are; their last word is that of the request.
 */
export async function runRequests(
  job: Job,
  ask: Ask,
  replyBytes: number = job.size,
): Promise<void> {
  const lanes = Array.from({ length: inFlight(job) }, () => new Lane(job.size, replyBytes, ask));
  const samples = new Samples();
  await runLanes(lanes, samples, job.warmMs);
  samples.reset();
  const start = performance.now();
  await runLanes(lanes, samples, job.runMs);
  const seconds = (performance.now() - start) / 1e3;
  say(JSON.stringify({ ...JSON.parse(samples.report()), seconds }));
}

async function runLanes(lanes: readonly Lane[], samples: Samples, forMs: number): Promise<void> {
  const until = performance.now() + forMs;
  await Promise.all(lanes.map((lane) => lane.run(samples, until)));
}

/** One request after the other, each written in full, each reply read in full. */
class Lane {
  readonly #source: Payload;
  readonly #copy: Payload;
  readonly #ask: Ask;
  #sequence = 0;

  constructor(size: number, replyBytes: number, ask: Ask) {
    this.#source = new Payload(size);
    this.#copy = new Payload(replyBytes);
    this.#ask = ask;
  }

  async run(samples: Samples, until: number): Promise<void> {
    let start: number;
    do {
      start = performance.now();
      this.#source.word = ++this.#sequence;
      const reply = await this.#ask(this.#source.bytes);
      this.#copy.bytes.set(reply);
      if (this.#copy.word !== this.#sequence) throw wrongWord(this.#sequence, this.#copy.word);
      samples.add(performance.now() - start);
    } while (start < until && !samples.full);
  }
}

/** Requests that wait, by number: for ways that have none of their own. */
export class Waiting {
  readonly #resolve: Map<number, (reply: Uint8Array) => void> = new Map();
  #last = 0;

  /** Sends by `send`, with a number that comes back with the reply. */
  ask(send: (id: number) => void): Promise<Uint8Array> {
    const id = ++this.#last;
    return new Promise((resolve) => {
      this.#resolve.set(id, resolve);
      send(id);
    });
  }

  onReply(id: number, reply: Uint8Array): void {
    this.#resolve.get(id)?.(reply);
    this.#resolve.delete(id);
  }
}
