// ukshm through its public interface. One-way jobs differ in how they send (by copy, through
// views) and in how they receive (spinning, `for await`, `readable` and `drain`).
import { setTimeout as sleep } from 'node:timers/promises';
import { type Channel, connect, listen, type MessageCursor } from '../../src/index.js';
import {
  BATCH,
  clockInterval,
  END_WORD,
  isRoundTrip,
  MESSAGES_MIN,
  measureTrips,
  Payload,
  parseJob,
  Samples,
  say,
  sayRate,
  sayReady,
  wrongWord,
} from './common.js';
import { alignedPayload, Inbox } from './inbox.js';

const RING_BYTES = 256 << 10;
/** A large message needs a chunk on each side of the hand-over, so that the two may overlap. */
const ARENA_BYTES_MIN = 4 << 20;
const SPIN_MICROS = 1000;
/** From here on a message is a chunk of the arena, and is written through a loan. */
const COPY_MAX = 32 << 10;

const job = parseJob();
const asleep = job.name === 'round-trip-asleep';
const arenaBytes = arenaFor(job.size);
const sizes = {
  ...{ sendRingBytes: RING_BYTES, receiveRingBytes: RING_BYTES },
  ...{ sendArenaBytes: arenaBytes, receiveArenaBytes: arenaBytes },
};
/** The channel's own waits: 0 where the row is to measure a side that sleeps. */
const spinMicros = asleep ? 0 : undefined;

function arenaFor(size: number): number {
  return Math.max(ARENA_BYTES_MIN, size <= COPY_MAX ? 0 : nextPowerOfTwo(4 * size));
}

function nextPowerOfTwo(value: number): number {
  return 2 ** Math.ceil(Math.log2(value));
}

// Sending ----------------------------------------------------------------------------------------

/** Sends one message and publishes it; waits by looking again. */
function sendOne(channel: Channel, source: Payload): void {
  if (source.bytes.length <= COPY_MAX) {
    while (!channel.trySend(source.bytes)) {}
    return;
  }
  let loan = channel.tryLoan(source.bytes.length);
  while (loan === undefined) loan = channel.tryLoan(source.bytes.length);
  loan.bytes.set(source.bytes);
  loan.send();
}

const LATER = { publish: false } as const;

type SendSome = (channel: Channel, source: Payload, sequence: number, count: number) => void;

const sendUnbatched: SendSome = (channel, source, sequence, count) => {
  for (let i = 0; i < count; i++) {
    source.word = sequence + i;
    sendOne(channel, source);
  }
};

const sendBatched: SendSome = (channel, source, sequence, count) => {
  for (let i = 0; i < count; i += BATCH) {
    for (let j = 0; j < BATCH; j++) {
      source.word = sequence + i + j;
      while (!channel.trySend(source.bytes, LATER)) channel.publish();
    }
    channel.publish();
  }
};

const sendViews: SendSome = (channel, source, sequence, count) => {
  const { bytes } = source;
  for (let i = 0; i < count; i += BATCH) {
    for (let j = 0; j < BATCH; j++) {
      source.word = sequence + i + j;
      let loan = channel.tryLoan(bytes.length);
      while (loan === undefined) {
        channel.publish();
        loan = channel.tryLoan(bytes.length);
      }
      loan.bytes.set(bytes);
      loan.send(LATER);
    }
    channel.publish();
  }
};

function sendPhase(channel: Channel, source: Payload, inbox: Inbox, forMs: number): number {
  const batched = source.bytes.length <= COPY_MAX && job.name !== 'one-way-unbatched';
  const views = job.name === 'one-way-views';
  const some = views ? sendViews : batched ? sendBatched : sendUnbatched;
  const interval = clockInterval(source.bytes.length);
  const until = performance.now() + forMs;
  let sequence = 0;
  do {
    some(channel, source, sequence, interval);
    sequence += interval;
  } while (sequence < MESSAGES_MIN || performance.now() < until);
  source.word = END_WORD;
  sendOne(channel, source);
  receiveOne(channel, inbox);
  return sequence;
}

function sendBoth(channel: Channel): void {
  const source = alignedPayload(job.size);
  const inbox = new Inbox(4);
  sendPhase(channel, source, inbox, job.warmMs);
  const start = performance.now();
  const sent = sendPhase(channel, source, inbox, job.runMs);
  sayRate(sent, (performance.now() - start) / 1e3);
}

// Receiving --------------------------------------------------------------------------------------

function receiveOne(channel: Channel, inbox: Inbox): void {
  do channel.spin(SPIN_MICROS);
  while (channel.drain(inbox.handler, 1) === 0);
}

/** Counts a phase's messages and notices its end, whichever way they come. */
class Phase {
  readonly inbox: Inbox;
  ended = false;
  #expected = 0;
  readonly handler: (message: MessageCursor) => void;

  constructor(inbox: Inbox) {
    this.inbox = inbox;
    const copyOut = inbox.handler;
    this.handler = (message) => {
      copyOut(message);
      this.check();
    };
  }

  check(): void {
    const { word } = this.inbox;
    if (word === this.#expected) {
      this.#expected++;
    } else {
      if (word !== END_WORD) throw wrongWord(this.#expected, word);
      this.ended = true;
    }
  }
}

async function receivePhase(channel: Channel, inbox: Inbox): Promise<void> {
  const phase = new Phase(inbox);
  if (job.name === 'one-way-for-await') {
    for await (const message of channel) {
      inbox.copy.bytes.set(message.bytes);
      inbox.word = inbox.copy.word;
      message.release();
      phase.check();
      if (phase.ended) break;
    }
  } else if (job.name === 'one-way-readable') {
    while (!phase.ended && (await channel.readable())) channel.drain(phase.handler);
  } else {
    while (!phase.ended) {
      channel.spin(SPIN_MICROS);
      channel.drain(phase.handler);
    }
  }
  const answer = new Payload(4);
  answer.word = END_WORD;
  sendOne(channel, answer);
}

// Round trips ------------------------------------------------------------------------------------

function pingSpinning(channel: Channel): void {
  const source = alignedPayload(job.size);
  const inbox = new Inbox(job.size);
  let sequence = 0;
  measureTrips(job, () => {
    source.word = ++sequence;
    sendOne(channel, source);
    receiveOne(channel, inbox);
    if (inbox.word !== sequence) throw wrongWord(sequence, inbox.word);
  });
  source.word = END_WORD;
  sendOne(channel, source);
}

function echoSpinning(channel: Channel): void {
  const source = alignedPayload(job.size);
  const inbox = new Inbox(job.size);
  for (;;) {
    receiveOne(channel, inbox);
    if (inbox.word === END_WORD) return;
    source.word = inbox.word;
    sendOne(channel, source);
  }
}

async function pingAsleep(channel: Channel): Promise<void> {
  const source = alignedPayload(job.size);
  const inbox = new Inbox(job.size);
  const samples = new Samples();
  let sequence = 0;
  for (const forMs of [job.warmMs, job.runMs]) {
    samples.reset();
    const until = performance.now() + forMs;
    let start: number;
    do {
      start = performance.now();
      source.word = ++sequence;
      sendOne(channel, source);
      do await channel.readable();
      while (channel.drain(inbox.handler) === 0);
      samples.add(performance.now() - start);
      if (inbox.word !== sequence) throw wrongWord(sequence, inbox.word);
    } while (start < until && !samples.full);
  }
  say(samples.report());
  source.word = END_WORD;
  sendOne(channel, source);
}

async function echoAsleep(channel: Channel): Promise<void> {
  const source = alignedPayload(job.size);
  const inbox = new Inbox(job.size);
  while (await channel.readable()) {
    if (channel.drain(inbox.handler) === 0) continue;
    if (inbox.word === END_WORD) return;
    source.word = inbox.word;
    sendOne(channel, source);
  }
}

/** Nothing is written or read: a loan goes over, is released, and a small answer comes back. */
function handOver(channel: Channel): void {
  const ignore = (): void => {};
  measureTrips(job, () => {
    const loan = channel.tryLoan(job.size);
    if (loan === undefined) throw new Error('the chunk did not come back');
    loan.send();
    do channel.spin(SPIN_MICROS);
    while (channel.drain(ignore) === 0);
  });
  const end = new Payload(4);
  end.word = END_WORD;
  sendOne(channel, end);
}

function takeOver(channel: Channel): void {
  const answer = new Payload(8);
  let ended = false;
  const note = (message: MessageCursor): void => {
    ended = message.lengthBytes === 4;
  };
  while (!ended) {
    channel.spin(SPIN_MICROS);
    // The chunk is released when `drain` returns, so it is free again before the answer arrives.
    if (channel.drain(note) > 0 && !ended) sendOne(channel, answer);
  }
}

// Jobs -------------------------------------------------------------------------------------------

async function timeToConnect(): Promise<void> {
  const samples = new Samples();
  const warmUntil = performance.now() + job.warmMs;
  const until = warmUntil + job.runMs;
  while (performance.now() < until) {
    const start = performance.now();
    const channel = await connect(job.address);
    if (start >= warmUntil) samples.add(performance.now() - start);
    await channel.close();
  }
  say(samples.report());
}

async function idle(): Promise<void> {
  const channels = [await connect(job.address), await connect(job.address)];
  say('idle');
  await sleep(job.warmMs + job.runMs);
  for (const channel of channels) await channel.close();
}

async function connectSide(): Promise<void> {
  if (job.name === 'connect') return timeToConnect();
  if (job.name === 'idle') return idle();
  const channel = await connect(job.address, { ...sizes, spinMicros });
  if (asleep) await pingAsleep(channel);
  else if (isRoundTrip(job)) pingSpinning(channel);
  else if (job.name === 'hand-over') handOver(channel);
  else sendBoth(channel);
  await channel.close();
}

async function listenSide(): Promise<void> {
  // These two jobs have channels of the usual size, and end when the harness closes our input.
  const usual = job.name === 'connect' || job.name === 'idle';
  const limits = { arenaBytes, maxArenaBytes: arenaBytes, maxBytesPerUser: 8 * arenaBytes };
  const listener = await listen(job.address, usual ? {} : { ...limits, spinMicros });
  sayReady();
  if (usual) {
    process.stdin.on('end', () => process.exit(0)).resume();
    for await (const channel of listener) watch(channel);
    return;
  }
  const channel = await listener.accept();
  if (asleep) await echoAsleep(channel);
  else if (isRoundTrip(job)) echoSpinning(channel);
  else if (job.name === 'hand-over') takeOver(channel);
  else for (let phase = 0; phase < 2; phase++) await receivePhase(channel, new Inbox(job.size));
  await channel.close();
  await listener.close();
}

/** Nothing is sent: `readable` resolves when the other side has closed. */
async function watch(channel: Channel): Promise<void> {
  while (await channel.readable()) channel.drain(() => {});
  await channel.close();
}

if (job.listens) await listenSide();
else await connectSide();
