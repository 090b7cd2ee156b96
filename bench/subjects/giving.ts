// Gives the other process so many bytes, which reads all of them and answers: by an offer, by a
// channel with and without a copy, and by a Unix socket of Node. The same in C is peers/c/give.c.
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { type Channel, connect, listen, type MessageCursor } from '../../src/index.js';
import { claim, offer, Pages } from '../../src/offer/index.js';
import { Payload, parseJob, Samples, say, sayRate, sayReady, wrongWord } from './common.js';
import { alignedPayload } from './inbox.js';

const SPIN_MICROS = 1000;
const WINDOW = 16;
const TELL_BYTES = 16;
const GIVE = { grant: 'rw', drop: 'rwx' } as const;

const job = parseJob();
const spins = job.name.startsWith('give-channel');
const payload = alignedPayload(job.size);
const arenaBytes = Math.max(4 << 20, 2 ** Math.ceil(Math.log2(4 * job.size)));

/** One hand-over: what is prepared before the clock starts, and what it measures. */
interface Giver {
  prepare(): Promise<void> | void;
  give(): Promise<number>;
  settle(): Promise<void> | void;
}

async function measure(giver: Giver): Promise<void> {
  const samples = new Samples();
  let sequence = 0;
  const warmUntil = performance.now() + job.warmMs;
  const until = warmUntil + job.runMs;
  let start = 0;
  let measured = 0;
  while (start < until && !samples.full) {
    payload.word = ++sequence;
    await giver.prepare();
    start = performance.now();
    const word = await giver.give();
    const took = performance.now() - start;
    if (word !== sequence) throw wrongWord(sequence, word);
    await giver.settle();
    // Whatever takes longer than the warm-up is measured once at least.
    if (start >= warmUntil || measured === 0) {
      samples.add(took);
      measured++;
    }
  }
  say(samples.report());
}

// Channels ---------------------------------------------------------------------------------------

/** The next message's last word; small ones only. */
class Answers {
  readonly #channel: Channel;
  readonly #words: number[] = [];

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async next(): Promise<number> {
    const take = (message: MessageCursor): void => {
      const { memory, offset } = message;
      this.#words.push(new DataView(memory.buffer, memory.byteOffset).getInt32(offset, true));
    };
    while (this.#words.length === 0) {
      if (spins) this.#channel.spin(SPIN_MICROS);
      else await this.#channel.readable();
      this.#channel.drain(take);
    }
    return this.#words.shift() ?? 0;
  }
}

function channelGiver(channel: Channel, copies: boolean): Giver {
  const answers = new Answers(channel);
  let loan = channel.tryLoan(job.size);
  const fill = async (): Promise<void> => {
    loan ??= await channel.loan(job.size);
    loan.bytes.set(payload.bytes);
  };
  return {
    prepare: copies ? () => {} : fill,
    give: async () => {
      if (copies) await fill();
      loan?.send();
      loan = undefined;
      return answers.next();
    },
    settle: () => {},
  };
}

/** Copies out what comes, and answers with its last word. */
async function receiveMessages(channel: Channel): Promise<void> {
  const copy = alignedPayload(job.size);
  const answer = new Payload(4);
  let came = 0;
  const take = (message: MessageCursor): void => {
    message.copyTo(copy.bytes);
    came++;
  };
  for (;;) {
    channel.spin(SPIN_MICROS);
    if (channel.drain(take, 1) === 0) {
      if (await ended(channel)) return;
      continue;
    }
    answer.word = copy.word;
    while (came > 0 && channel.trySend(answer.bytes)) came--;
  }
}

async function ended(channel: Channel): Promise<boolean> {
  const open = new Promise<false>((resolve) => setImmediate(resolve, false));
  return (await Promise.race([channel.closed.then(() => true as const), open])) === true;
}

// Offers -----------------------------------------------------------------------------------------

function tell(channel: Channel, address: number): Promise<void> {
  const bytes = new Uint8Array(TELL_BYTES);
  new Float64Array(bytes.buffer)[0] = address;
  return channel.send(bytes);
}

function offerGiver(channel: Channel, allIn: boolean): Giver {
  const answers = new Answers(channel);
  const { pid } = channel.peer;
  let pages: Pages | undefined;
  const make = (): Pages => {
    pages = Pages.allocate({ sizeBytes: job.size });
    pages.bytes.set(payload.bytes);
    return pages;
  };
  return {
    prepare: () => void (allIn || make()),
    give: async () => {
      const given = allIn ? make() : (pages as Pages);
      const offered = offer(pid, given, GIVE);
      void tell(channel, offered.address);
      const word = await answers.next();
      if (offered.state !== 'claimed') throw new Error(`the offer is ${offered.state}`);
      return word;
    },
    settle: () => pages?.close(),
  };
}

async function measureRate(channel: Channel): Promise<void> {
  const answers = new Answers(channel);
  const { pid } = channel.peer;
  let sent = 0;
  let answered = 0;
  const phase = async (forMs: number): Promise<number> => {
    const until = performance.now() + forMs;
    const first = answered;
    while (performance.now() < until) {
      for (; sent - answered < WINDOW; sent++) {
        const pages = Pages.allocate({ sizeBytes: job.size });
        pages.bytes.set(payload.bytes);
        const offered = offer(pid, pages, GIVE);
        void offered.ended.then(() => pages.close());
        await tell(channel, offered.address);
      }
      await answers.next();
      answered++;
    }
    return answered - first;
  };
  await phase(job.warmMs);
  const start = performance.now();
  const count = await phase(job.runMs);
  const seconds = (performance.now() - start) / 1e3;
  for (; answered < sent; answered++) await answers.next();
  sayRate(count, seconds);
}

async function receiveOffers(channel: Channel): Promise<void> {
  const copy = alignedPayload(job.size);
  const { pid } = channel.peer;
  const take = async (address: number): Promise<void> => {
    const pages = await claim(pid, address);
    copy.bytes.set(pages.bytes.subarray(0, job.size));
    const answer = new Payload(4);
    answer.word = copy.word;
    await channel.send(answer.bytes);
    pages.close();
  };
  const addresses: number[] = [];
  while (await channel.readable()) {
    channel.drain((message) => {
      addresses.push(new Float64Array(message.bytes.slice(0, 8).buffer)[0] ?? 0);
    });
    const claims = addresses.splice(0).map(take);
    if (job.name !== 'give-rate') await Promise.all(claims);
  }
}

// Sockets ----------------------------------------------------------------------------------------

function socketGiver(socket: Socket): Giver {
  let answered = (_word: number): void => {};
  socket.on('data', (chunk: Buffer) => answered(chunk.readInt32LE(0)));
  return {
    prepare: () => {},
    give: () =>
      new Promise((resolve) => {
        answered = resolve;
        socket.write(payload.bytes);
      }),
    settle: () => {},
  };
}

function receiveBytes(socket: Socket): void {
  const copy = alignedPayload(job.size);
  const answer = Buffer.alloc(4);
  let held = 0;
  socket.on('data', (chunk: Buffer) => {
    copy.bytes.set(chunk, held);
    held += chunk.length;
    if (held < job.size) return;
    held = 0;
    answer.writeInt32LE(copy.word);
    socket.write(Buffer.from(answer));
  });
  socket.on('end', () => socket.end());
}

// Sides ------------------------------------------------------------------------------------------

async function giveByChannel(): Promise<void> {
  const sizes = { sendArenaBytes: arenaBytes, receiveArenaBytes: 0 };
  const channel = await connect(job.address, spins ? sizes : { spinMicros: 0 });
  if (job.name === 'give-rate') await measureRate(channel);
  else if (spins) await measure(channelGiver(channel, job.name.endsWith('copy')));
  else await measure(offerGiver(channel, job.name === 'give-page'));
  await channel.close();
}

async function receiveByChannel(): Promise<void> {
  const limits = { maxArenaBytes: arenaBytes, maxBytesPerUser: 8 * arenaBytes };
  const waits = spins ? {} : { spinMicros: 0 };
  const listener = await listen(job.address, { ...limits, ...waits });
  sayReady();
  const channel = await listener.accept();
  await (spins ? receiveMessages(channel) : receiveOffers(channel));
  await channel.close();
  await listener.close();
}

if (job.name === 'give-net') {
  if (job.listens) {
    const server = createServer((socket) => {
      server.close();
      receiveBytes(socket);
    }).listen(job.address, sayReady);
  } else {
    const socket = netConnect(job.address);
    await measure(socketGiver(socket));
    socket.end();
  }
} else {
  await (job.listens ? receiveByChannel() : giveByChannel());
}
