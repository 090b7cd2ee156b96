// zeromq from npm: a pair of sockets over ipc://. In JavaScript, because the main install has
// neither the package nor its types. argv[2] is the folder in which the package is installed.
import { createRequire } from 'node:module';
import { parseJob } from '../../../dist/bench/subjects/common.js';
import { runLink } from '../../../dist/bench/subjects/link.js';

const zmq = createRequire(`${process.argv[2]}/`)('zeromq');

class PairLink {
  needsCredit = false;
  onMessage = () => {};
  #socket;
  #sent = Promise.resolve();
  #closed = false;

  constructor(socket) {
    this.#socket = socket;
  }

  send(bytes) {
    // What is handed over must not change until it is sent: each message needs its own copy.
    const copy = Buffer.allocUnsafe(bytes.length);
    copy.set(bytes);
    this.#sent = this.#socket.send(copy);
    return false;
  }

  writable() {
    return this.#sent;
  }

  async receiveAll() {
    for await (const [message] of this.#socket) {
      if (this.#closed) break;
      this.onMessage(message);
    }
  }

  // A closed socket lingers until its last message has left; the listener stays until the harness
  // closes standard input, because the other side may still be reading.
  close() {
    this.#closed = true;
    const close = () => this.#sent.then(() => this.#socket.close());
    if (job.listens) process.stdin.on('end', close).resume();
    else close();
  }
}

const job = parseJob(process.argv.slice(3));
const socket = new zmq.Pair({ linger: 1000 });
const endpoint = `ipc://${job.address}`;
if (job.listens) {
  await socket.bind(endpoint);
  process.stdout.write('ready\n');
} else {
  socket.connect(endpoint);
}
const link = new PairLink(socket);
await Promise.all([runLink(job, link), link.receiveAll()]);
