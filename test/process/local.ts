// Ends of channels in the test's own process, and what tests do with them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Channel,
  type ConnectOptions,
  connect,
  type Listener,
  type ListenOptions,
  listen,
  type Message,
} from '../../src/index.js';
import { type Owner, uniqueName } from './actors.js';
import { pattern } from './pattern.js';

/** The two ends of a channel of this process. */
export interface Pair {
  readonly listener: Listener;
  /** The listener's end. */
  readonly near: Channel;
  /** The connector's end. */
  readonly far: Channel;
}

/** A channel between two ends in this process; both are closed at the end of the test. */
export async function pairOf(
  owner: Owner,
  listenOptions?: ListenOptions,
  connectOptions?: ConnectOptions,
): Promise<Pair> {
  const name = uniqueName('pair');
  const listener = await listen(name, listenOptions);
  owner.after(() => listener.close());
  const [near, far] = await Promise.all([listener.accept(), connect(name, connectOptions)]);
  owner.after(() => endAll(near, far));
  return { listener, near, far };
}

/** Ends channels at once, whatever is still in them. */
export async function endAll(...channels: Channel[]): Promise<void> {
  const signal = AbortSignal.abort();
  await Promise.allSettled(channels.map((channel) => channel.close({ signal })));
}

/** A listener that is closed at the end of the test. */
export async function listenFor(
  owner: Owner,
  options?: ListenOptions,
  name: string = uniqueName('listener'),
): Promise<Listener> {
  const listener = await listen(name, options);
  owner.after(() => listener.close());
  return listener;
}

/** A folder that is removed at the end of the test. */
export function folderFor(owner: Owner): string {
  const folder = mkdtempSync(join(tmpdir(), 'ukshm-test-'));
  owner.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The next message; the channel stays open. */
export async function nextOf(channel: Channel): Promise<Message> {
  for await (const message of channel) return message;
  throw new Error('the channel ended');
}

/** Fills a channel with messages of this size, ids from 0; how many it took. */
export function fill(channel: Channel, lengthBytes: number): number {
  let count = 0;
  while (channel.trySend(pattern(lengthBytes, count), { id: count })) count++;
  return count;
}

/** Whether a promise has not settled after all that is under way was done. */
export async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  const first = await Promise.race([promise.catch(() => {}), sleep(20).then(() => pending)]);
  return first === pending;
}
