// The actor of topics in TypeScript: a process that publishes or subscribes. The clients in C and
// Python have one with the same command line, and topics.test.ts pairs them all.
//
//     publish NAME SUBSCRIBERS COUNT KEEP SIZES
//         opens the topic and publishes COUNT messages, in as many equal parts as SUBSCRIBERS has
//         numbers (joined by ','), each part when there are so many subscribers; says "part" before
//         each but the first. The lengths are those of SIZES, in turn. Says "published", and closes
//         the topic when its standard input ends
//     subscribe NAME SLOW DEPTH HOLD
//         reads to the end, keeping up to HOLD messages
//     later NAME SLOW DEPTH HOLD
//         likewise, but reads nothing before its standard input ends; says "reading" at the first
//
// It prints a line of JSON for each event: ready, then done or error.
import { setTimeout as sleep } from 'node:timers/promises';
import type { UkshmError } from '../../src/index.js';
import {
  openTopic,
  type SlowPolicy,
  subscribe,
  type TopicMessage,
} from '../../src/patterns/topic/index.js';

const WAIT_MS = 20_000;
const [role = '', name = '', ...args] = process.argv.slice(2);

function say(event: string, more: object = {}): void {
  process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
}

function fill(target: Uint8Array, k: number): Uint8Array {
  for (let i = 0; i < target.length; i++) target[i] = k * 131 + i * 7 + (i >> 8);
  return target;
}

function check(message: TopicMessage): void {
  const expected = fill(new Uint8Array(message.lengthBytes), message.sequence);
  if (Buffer.compare(expected, message.bytes) === 0) return;
  throw new Error(`message ${message.sequence} holds other bytes`);
}

function inputEnds(): Promise<void> {
  return new Promise((resolve) => process.stdin.on('end', () => resolve()).resume());
}

async function publish(): Promise<void> {
  const waits = (args[0] ?? '0').split(',').map(Number);
  const [count = 0, keep = 0] = args.slice(1, 3).map(Number);
  const sizes = (args[3] ?? '0').split(',').map(Number);
  const topic = await openTopic(name, { mayBlock: true, keep });
  say('ready');
  let bytes = 0;
  for (let k = 0; k < count; k++) {
    const [part, before] = [k, k - 1].map((at) => Math.floor((at * waits.length) / count));
    const wanted = part === before ? 0 : (waits[part ?? 0] ?? 0);
    if (part !== before && k > 0) say('part');
    while (topic.subscribers.length < wanted) await sleep(2);
    const size = sizes[k % sizes.length] ?? 0;
    const loan = await topic.loan(size);
    fill(loan.bytes, k);
    await loan.publish();
    bytes += size;
  }
  say('published', { subscribers: topic.subscribers.length });
  await inputEnds();
  await topic.close();
  say('done', { messages: count, bytes });
}

async function listenTo(later: boolean): Promise<void> {
  const [slow = 'drop-oldest', depth = '256', hold = '0'] = args;
  const subscription = await subscribe(name, {
    wait: true,
    signal: AbortSignal.timeout(WAIT_MS),
    slow: slow as SlowPolicy,
    depth: Number(depth),
  });
  say('ready');
  if (later) await inputEnds();
  const held: TopicMessage[] = [];
  const letGo = (message: TopicMessage | undefined): void => {
    if (message === undefined) return;
    check(message);
    message.release();
  };
  let [messages, bytes, first, code] = [0, 0, -1, 'end'];
  try {
    for await (const message of subscription) {
      check(message);
      if (messages++ === 0) {
        first = message.sequence;
        if (later) say('reading');
      }
      bytes += message.lengthBytes;
      held.push(message);
      if (held.length > Number(hold)) letGo(messages % 2 === 0 ? held.shift() : held.pop());
    }
  } catch (error) {
    code = (error as UkshmError).code ?? String(error);
  }
  for (const message of held) letGo(message);
  const { missed } = subscription;
  await subscription.close();
  say('done', { messages, bytes, first, missed, code });
}

const acting = role === 'publish' ? publish() : listenTo(role === 'later');
acting.catch((error: UkshmError) => {
  say('error', { code: error.code ?? error.name, message: error.message });
  process.exit(1);
});
