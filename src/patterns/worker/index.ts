// `ukshm/worker`: everything of node:worker_threads, with `postMessage` of large parts made faster.
import * as node from 'node:worker_threads';
import { quicken } from './quicken.js';

export * from 'node:worker_threads';

/** As Node's. */
export class Worker extends node.Worker {
  constructor(...args: ConstructorParameters<typeof node.Worker>) {
    super(...args);
    quicken(this);
  }
}

/** As Node's. */
export class MessageChannel extends node.MessageChannel {
  constructor() {
    super();
    quicken(this.port1);
    quicken(this.port2);
  }
}

/** As Node's: the same port. */
export const parentPort: node.MessagePort | null = node.parentPort;
if (parentPort !== null) quicken(parentPort);

/** The whole module, as Node's default export. */
const workerThreads: typeof node = { ...node, Worker, MessageChannel, parentPort };
export default workerThreads;
