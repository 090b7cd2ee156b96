// A topic of ukshm: every subscriber gets every message, so the publisher waits for the slowest.
import { fileURLToPath } from 'node:url';
import { openTopic, subscribe } from '../../src/patterns/topic/index.js';
import { parseJob } from './common.js';
import { Reader, Readers, readerCount, runPublisher } from './fan-out.js';

const ARENA_BYTES_MIN = 16 << 20;

const job = parseJob();

if (job.listens) {
  const subscription = await subscribe(job.address, { slow: 'block', wait: true });
  const reader = new Reader(job.size);
  reader.ready();
  while (await subscription.readable()) {
    subscription.drain((message) => reader.take(message.bytes));
  }
  await subscription.close();
} else {
  const arenaBytes = Math.max(ARENA_BYTES_MIN, 16 * job.size);
  const topic = await openTopic(job.address, { mayBlock: true, arenaBytes });
  const readers = new Readers(fileURLToPath(import.meta.url), readerCount(job));
  await readers.all('ready');
  await runPublisher(readers, (bytes) => {
    return topic.tryPublish(bytes) ? undefined : topic.publish(bytes);
  });
  await topic.close();
  await readers.close();
}
