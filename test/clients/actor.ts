// The actor in TypeScript: a process that takes one role on one channel. The clients in C and
// Python have one with the same command line, and clients.test.ts pairs them all.
//
//     listen|connect NAME ROLE [ARGS]
//
// It prints a line of JSON for each event: ready, then done or error.
import {
  type Channel,
  connect,
  type Listener,
  listen,
  type Message,
  type UkshmError,
} from '../../src/index.js';

const SIZES = [0, 1, 7, 8, 9, 63, 64, 65, 1000, 4096, 8192, 8193, 65520, 65521, 1e5, 1048576, 3e6];
const SMALL_COUNT = 3000;
const IN_FLIGHT = 8;
const CONNECT_MS = 20_000;

const [how = '', name = '', role = '', ...args] = process.argv.slice(2);
let messages = 0;
let bytes = 0;

function say(event: string, more: object = {}): void {
  process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
}

function fill(target: Uint8Array, k: number): Uint8Array {
  for (let i = 0; i < target.length; i++) target[i] = k * 131 + i * 7 + (i >> 8);
  return target;
}

function check(message: Pick<Message, 'bytes' | 'id'>, k: number): void {
  const expected = fill(new Uint8Array(message.bytes.length), k);
  if (Buffer.compare(expected, message.bytes) === 0) return;
  throw new Error(`message ${k} (id ${message.id}) holds other bytes`);
}

function count(message: Message): void {
  messages++;
  bytes += message.lengthBytes;
}

async function echo(channel: Channel): Promise<void> {
  for await (const message of channel) {
    count(message);
    if (message.isRequest) {
      await message.reply(message.bytes, { type: message.type });
      continue;
    }
    await channel.send(message.bytes, { type: message.type, id: message.id });
    message.release();
  }
}

async function ask(channel: Channel): Promise<void> {
  const replies = channel[Symbol.asyncIterator]();
  const expect = async (k: number, type: number, id: number, size: number): Promise<void> => {
    const { value: message } = await replies.next();
    const { type: gotType, id: gotId, lengthBytes } = message as Message;
    if (gotType !== type || gotId !== id || lengthBytes !== size) {
      throw new Error(`echo ${k}: type ${gotType}, id ${gotId}, ${lengthBytes} bytes`);
    }
    check(message, k);
    count(message);
    message.release();
  };
  for (const [k, size] of SIZES.entries()) {
    const loan = await channel.loan(size, { type: k, id: 1000 + k });
    fill(loan.bytes, k);
    loan.send();
    await expect(k, k, 1000 + k, size);
  }
  for (let k = 0; k < SMALL_COUNT + IN_FLIGHT; k++) {
    if (k < SMALL_COUNT) {
      const body = fill(new Uint8Array((k * 37) % 5000), k);
      await channel.send(body, { type: 1, id: k });
    }
    const done = k - IN_FLIGHT;
    if (done >= 0) await expect(done, 1, done, (done * 37) % 5000);
  }
  await replies.return?.();
}

/** As `ask`, by requests: sizes first, then many under way. */
async function request(channel: Channel): Promise<void> {
  const one = async (k: number, size: number): Promise<void> => {
    const reply = await channel.request(fill(new Uint8Array(size), k), { type: k % 1000 });
    if (reply.type !== k % 1000) throw new Error(`reply ${k} has type ${reply.type}`);
    check(reply, k);
    count(reply);
    reply.release();
  };
  for (const [k, size] of SIZES.entries()) await one(k, size);
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < SMALL_COUNT) {
      const k = next++;
      await one(k, (k * 37) % 5000);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
}

async function source(channel: Channel): Promise<void> {
  const [howMany, size] = args.map(Number);
  for (let k = 0; k < (howMany ?? 0); k++) {
    await channel.send(fill(new Uint8Array(size ?? 0), k), { type: 1, id: k });
    messages++;
    bytes += size ?? 0;
  }
}

async function sink(channel: Channel, keep: number): Promise<void> {
  const kept: Message[] = [];
  for await (const message of channel) {
    check(message, message.id);
    count(message);
    kept.push(message);
    if (kept.length <= keep) continue;
    const release = messages % 2 === 0 ? kept.shift() : kept.pop();
    release?.release();
  }
  for (const message of kept) {
    check(message, message.id);
    message.release();
  }
}

async function forward(channel: Channel): Promise<void> {
  const target = await connect(args[0] ?? '', waiting());
  for await (const message of channel) {
    count(message);
    await message.forward(target);
  }
  await target.close();
}

function stall(): Promise<void> {
  return new Promise((resolve) => process.stdin.on('end', () => resolve()).resume());
}

function waiting(): { wait: true; signal: AbortSignal } {
  return { wait: true, signal: AbortSignal.timeout(CONNECT_MS) };
}

const ROLES: Record<string, (channel: Channel) => Promise<void>> = {
  echo,
  ask,
  request,
  source,
  sink: (channel) => sink(channel, 0),
  hold: (channel) => sink(channel, Number(args[0])),
  forward,
  stall,
};

async function main(): Promise<void> {
  const act = ROLES[role];
  if (act === undefined) throw new Error(`no role '${role}'`);
  let listener: Listener | undefined;
  let channel: Channel;
  if (how === 'listen') {
    listener = await listen(name, { maxArenaBytes: 2 ** 26 });
    say('ready');
    channel = await listener.accept();
  } else {
    const arena = 2 ** 24;
    channel = await connect(name, {
      ...waiting(),
      sendArenaBytes: arena,
      receiveArenaBytes: arena,
    });
    say('ready');
  }
  await act(channel);
  await channel.close();
  await listener?.close();
  say('done', { messages, bytes });
}

main().catch((error: UkshmError) => {
  say('error', { code: error.code ?? error.name, message: error.message });
  process.exit(1);
});
