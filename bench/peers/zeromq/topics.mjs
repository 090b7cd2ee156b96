// A publisher of zeromq and its subscribers, without loss: the socket waits where one of them is full.
// argv[2] is the folder in which the package is installed.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { parseJob } from '../../../dist/bench/subjects/common.js';
import { Reader, Readers, readerCount, runPublisher } from '../../../dist/bench/subjects/fan-out.js';

const zmq = createRequire(`${process.argv[2]}/`)('zeromq');
const job = parseJob(process.argv.slice(3));
const endpoint = `ipc://${job.address}`;

if (job.listens) {
  const subscriber = new zmq.Subscriber();
  subscriber.connect(endpoint);
  subscriber.subscribe();
  const reader = new Reader(job.size);
  process.on('disconnect', () => process.exit(0));
  reader.ready();
  for await (const [message] of subscriber) reader.take(message);
} else {
  const publisher = new zmq.XPublisher({ noDrop: true, verbosity: 'allSubs', linger: 0 });
  await publisher.bind(endpoint);
  const readers = new Readers(fileURLToPath(import.meta.url), readerCount(job));
  await readers.all('ready');
  // Its subscriptions arrive as messages; what is published before is lost.
  for (let i = 0; i < readerCount(job); i++) await publisher.receive();
  // Where a subscriber is full, `noDrop` makes send fail, and nothing tells when it no longer is.
  const publish = async (bytes) => {
    const copy = Buffer.from(bytes);
    for (;;) {
      try {
        return await publisher.send(copy);
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error;
        await new Promise(setImmediate);
      }
    }
  };
  await runPublisher(readers, publish, job);
  publisher.close();
  await readers.close();
}
