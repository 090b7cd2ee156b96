// Goal: `ukshm/worker` keeps what Node's documentation promises of Worker, ports and postMessage, with
// small and large messages.
// Method: each promise runs against both, with the same expectation.
import assert from 'node:assert/strict';
import { type EventEmitter, once } from 'node:events';
import { describe, it } from 'node:test';
import * as node from 'node:worker_threads';
import * as ukshm from '../../src/patterns/worker/index.js';
import { pattern } from './pattern.js';

type Threads = typeof node;
const INDEX = new URL('../../src/patterns/worker/index.js', import.meta.url).href;
const BOTH: readonly (readonly [name: string, threads: Threads, module: string])[] = [
  ['node:worker_threads', node, 'node:worker_threads'],
  ['ukshm/worker', ukshm as unknown as Threads, INDEX],
];

function promise(what: string, run: (threads: Threads, start: Start) => Promise<void>): void {
  for (const [name, threads, module] of BOTH) {
    const workers: node.Worker[] = [];
    const start: Start = (code, options) => {
      const url = new URL(
        `data:text/javascript,${encodeURIComponent(`
          import * as threads from ${JSON.stringify(module)};
          const { parentPort, workerData } = threads;
          ${code}`)}`,
      );
      const worker = new threads.Worker(url, options);
      workers.push(worker);
      return worker;
    };
    it(`${what} (${name})`, async () => {
      try {
        await run(threads, start);
      } finally {
        await Promise.all(workers.map((worker) => worker.terminate()));
      }
    });
  }
}

type Start = (code: string, options?: node.WorkerOptions) => node.Worker;
const ECHO = `parentPort.on('message', (message) => parentPort.postMessage(message));`;
const large = (seed: number): Uint8Array => new Uint8Array(pattern(900_000, seed));

async function next(port: node.Worker | node.MessagePort): Promise<never> {
  const [message] = await once(port as EventEmitter, 'message');
  return message as never;
}

describe('worker threads', () => {
  promise('send and receive messages of all sizes, in order', async (_threads, start) => {
    const worker = start(ECHO);
    const sizes = [0, 1_000_000, 10, 200_000, 131_072, 5, 3_000_000];
    for (let round = 0; round < 3; round++) {
      const got: unknown[] = [];
      const all = new Promise<void>((resolve) => {
        worker.on('message', ({ i, part }) => {
          assert.ok(part.every((byte: number) => byte === i));
          if (got.push([i, part.length]) === sizes.length) resolve();
        });
      });
      for (const [i, size] of sizes.entries()) {
        worker.postMessage({ i, part: new Uint8Array(size).fill(i) });
      }
      await all;
      worker.removeAllListeners('message');
      assert.deepEqual(got, [...sizes.entries()]);
    }
  });

  promise(
    'take what is posted as it is then, and leave it to the poster',
    async (_threads, start) => {
      const worker = start(ECHO);
      for (let i = 0; i < 4; i++) {
        const part = large(i);
        worker.postMessage({ part });
        part.fill(0);
        const back: { part: Uint8Array } = await next(worker);
        assert.equal(part.byteLength, 900_000);
        assert.deepEqual(back.part, large(i));
        back.part.fill(1);
        assert.equal(
          structuredClone(back.part.buffer, { transfer: [back.part.buffer as ArrayBuffer] })
            .byteLength,
          900_000,
        );
      }
    },
  );

  promise('move what is to be transferred', async (_threads, start) => {
    const worker = start(ECHO);
    for (let i = 0; i < 3; i++) {
      const moved = large(1);
      const kept = large(2);
      worker.postMessage({ moved, kept }, [moved.buffer as ArrayBuffer]);
      assert.deepEqual([moved.byteLength, kept.byteLength], [0, 900_000]);
      const back: { moved: Uint8Array; kept: Uint8Array } = await next(worker);
      assert.deepEqual([back.moved, back.kept], [large(1), large(2)]);
    }
    const options = { transfer: [large(3).buffer] } as never;
    worker.postMessage({ part: large(4) }, options);
    assert.deepEqual(await next(worker), { part: large(4) });
  });

  promise('share what is shared, and move ports', async (threads, start) => {
    const worker = start(`parentPort.on('message', ({ shared, port, part }) => {
      Atomics.store(new Int32Array(shared), 0, 5);
      port.postMessage({ part });
      port.close();
    });`);
    for (let i = 0; i < 3; i++) {
      const shared = new SharedArrayBuffer(4);
      const { port1, port2 } = new threads.MessageChannel();
      worker.postMessage({ shared, port: port2, part: large(i) }, [port2]);
      assert.deepEqual(await next(port1), { part: large(i) });
      assert.equal(new Int32Array(shared)[0], 5);
    }
  });

  promise('speak through ports of a channel, in all ways of listening', async (threads) => {
    const { port1, port2 } = new threads.MessageChannel();
    port1.postMessage({ first: large(1) });
    assert.deepEqual(threads.receiveMessageOnPort(port2), { message: { first: large(1) } });
    assert.equal(threads.receiveMessageOnPort(port2), undefined);
    const seen: unknown[] = [];
    port2.addEventListener(
      'message',
      ((event: { data: unknown }) => seen.push(event.data)) as never,
      {
        once: true,
      } as never,
    );
    port2.once('message', (data) => seen.push(data));
    port1.postMessage({ second: large(2) });
    port1.postMessage(Buffer.from(large(3)));
    await next(port2);
    port2.close();
    assert.deepEqual(seen, [{ second: large(2) }, { second: large(2) }]);
    assert.ok(port1 instanceof node.MessagePort);
  });

  promise('refuse what cannot be cloned, and go on', async (_threads, start) => {
    const worker = start(ECHO);
    for (let i = 0; i < 3; i++) {
      assert.throws(() => worker.postMessage({ part: large(1), f: () => {} }), {
        name: 'DataCloneError',
      });
      assert.throws(() => worker.postMessage({ part: large(1) }, [5] as never));
      const { buffer } = large(1);
      assert.throws(() => worker.postMessage(buffer, [buffer, buffer] as never), {
        name: 'DataCloneError',
      });
      assert.throws(() => (worker.postMessage as () => void)(), TypeError);
      worker.postMessage({ part: large(2) });
      assert.deepEqual(await next(worker), { part: large(2) });
    }
  });

  promise('call a getter once, whatever it stands beside', async (_threads, start) => {
    const worker = start(ECHO);
    for (let i = 0; i < 3; i++) {
      worker.postMessage({ part: large(1) });
      await next(worker);
      let reads = 0;
      const message = {
        part: large(2),
        get value() {
          return ++reads;
        },
      };
      worker.postMessage(message);
      assert.deepEqual(await next(worker), { part: large(2), value: 1 });
    }
  });

  promise('get data and environment, report errors and end', async (threads, start) => {
    const worker = start(
      'parentPort.postMessage([workerData, threads.isMainThread, threads.threadId])',
      {
        workerData: { part: large(7) },
      },
    );
    const { threadId } = worker;
    const exit = once(worker, 'exit');
    assert.deepEqual(await next(worker), [{ part: large(7) }, false, threadId]);
    assert.deepEqual(await exit, [0]);
    assert.equal(worker.postMessage({ part: large(1) }), undefined);
    const failing = start(`parentPort.once('message', () => { throw new RangeError('mine'); });`);
    failing.postMessage({ part: large(1) });
    const [error] = await once(failing, 'error');
    assert.equal(error.message, 'mine');
    assert.ok(worker instanceof threads.Worker && worker instanceof node.Worker);
    assert.equal(threads.isMainThread, true);
    assert.equal(threads.parentPort, node.parentPort);
  });

  it('have everything that Node has', () => {
    assert.deepEqual(Object.keys(ukshm).sort(), Object.keys(node).sort());
    const { default: whole } = ukshm;
    assert.deepEqual(Object.keys(whole).sort(), Object.keys(node).sort());
  });
});
