// Requests over zeromq: a dealer asks, a router answers, as zeromq's guide does it for more than one
// request at a time. argv[2] is the folder in which the package is installed.
import { createRequire } from 'node:module';
import { runRequests, Waiting } from '../../../dist/bench/subjects/asking.js';
import { parseJob } from '../../../dist/bench/subjects/common.js';

const zmq = createRequire(`${process.argv[2]}/`)('zeromq');
const job = parseJob(process.argv.slice(3));
const endpoint = `ipc://${job.address}`;

if (job.listens) {
  const router = new zmq.Router({ linger: 0 });
  await router.bind(endpoint);
  process.stdout.write('ready\n');
  process.stdin.on('end', () => router.close()).resume();
  for await (const [who, id, body] of router) await router.send([who, id, body]);
} else {
  const dealer = new zmq.Dealer({ linger: 0 });
  dealer.connect(endpoint);
  const waiting = new Waiting();
  // One send at a time: a socket refuses a second one while the first is under way.
  let sent = Promise.resolve();
  const receive = async () => {
    for await (const [id, body] of dealer) waiting.onReply(id.readUInt32LE(), body);
  };
  void receive().catch(() => {});
  await runRequests(job, (body) =>
    waiting.ask((id) => {
      const number = Buffer.allocUnsafe(4);
      number.writeUInt32LE(id);
      const copy = Buffer.from(body);
      sent = sent.then(() => dealer.send([number, copy]));
    }),
  );
  dealer.close();
}
