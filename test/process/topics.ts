// What the tests of topics share: topics and subscriptions of this process, and reading them.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import {
  openTopic,
  type SubscribeOptions,
  type Subscription,
  subscribe,
  type Topic,
  type TopicMessage,
  type TopicOptions,
} from '../../src/patterns/topic/index.js';
import { uniqueName } from './actors.js';
import { isPattern, pattern } from './pattern.js';

/** One message that is copied into each ring, and one that lies in the shared memory. */
export const SMALL = 100;
export const LARGE = 20_000;

/** A topic of this process; closed at the end of the test. */
export async function topicFor(
  context: TestContext,
  options?: TopicOptions,
  name: string = uniqueName('topic'),
): Promise<Topic> {
  const topic = await openTopic(name, options);
  context.after(() => topic.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return topic;
}

export async function subscriptionFor(
  context: TestContext,
  name: string,
  options?: SubscribeOptions,
): Promise<Subscription> {
  const subscription = await subscribe(name, options);
  context.after(() => subscription.close({ signal: AbortSignal.abort() }).catch(() => {}));
  return subscription;
}

export async function publish(topic: Topic, lengthBytes: number, count: number = 1): Promise<void> {
  for (let i = 0; i < count; i++) await topic.publish(pattern(lengthBytes, topic.sequence));
}

/** Reads to the end. */
export async function takeAll(subscription: Subscription): Promise<[number, number][]> {
  const seen: [number, number][] = [];
  while (await subscription.readable()) seen.push(...take(subscription));
  return seen;
}

/** The numbers of those that wait now, each whole; what was missed before each. */
export function take(subscription: Subscription): [sequence: number, missed: number][] {
  const seen: [number, number][] = [];
  subscription.drain((message) => {
    const { sequence, missed, bytes } = message;
    assert.ok(isPattern(bytes, sequence), `message ${sequence} is whole`);
    seen.push([sequence, missed]);
  });
  return seen;
}

/** As `take`, until there are so many. */
export async function takeMany(
  subscription: Subscription,
  count: number,
): Promise<[number, number][]> {
  const seen: [number, number][] = [];
  while (seen.length < count && (await subscription.readable())) seen.push(...take(subscription));
  return seen;
}

export async function hold(subscription: Subscription, count: number): Promise<TopicMessage[]> {
  const messages: TopicMessage[] = [];
  for await (const message of subscription) {
    messages.push(message);
    if (messages.length === count) break;
  }
  return messages;
}

export function numbers(from: number, count: number): [number, number][] {
  return Array.from({ length: count }, (_, i) => [(from + i) >>> 0, 0]);
}
