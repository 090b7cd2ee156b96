// Goal: our `fork` keeps every promise that Node's documentation makes of `send`.
// Method: each promise is a test that runs against both, with the same expectation written out; what
// a child was promised to see is told by the child.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe } from 'node:test';
import { codeOf, type Forked, forked, promise, STAY } from './forks.js';

describe('send', { concurrency: 2 }, () => {
  promise('keeps the order of messages of all sizes, both ways', async (fork) => {
    for (const serialization of ['json', 'advanced'] as const) {
      const child = forked(fork, STAY, { serialization });
      const sizes = [0, 10, 100_000, 5, 300_000, 1, 70_000, 2];
      for (const [i, size] of sizes.entries()) child.process.send({ i, text: 'x'.repeat(size) });
      for (const [i, size] of sizes.entries()) {
        const message: { i: number; text: string } = await child.next();
        assert.deepEqual([message.i, message.text.length], [i, size]);
      }
      await child.end();
    }
  });

  promise('calls back with null, behind it and in order', async (fork) => {
    const child = forked(fork, STAY);
    const calls: unknown[] = [];
    const returned = [
      child.process.send('a', (error) => calls.push(['a', error])),
      child.process.send('b', undefined, (error) => calls.push(['b', error])),
      child.process.send('c', undefined, {}, (error) => calls.push(['c', error])),
    ];
    assert.deepEqual([returned, calls], [[true, true, true], []]);
    for (const letter of ['a', 'b', 'c']) assert.equal(await child.next(), letter);
    assert.deepEqual(calls, [
      ['a', null],
      ['b', null],
      ['c', null],
    ]);
    await child.end();
  });

  promise('returns false when much is waiting to be sent, and sends it', async (fork) => {
    const child = forked(fork, `process.on('message', (m) => m.end && process.send('all'))`);
    const text = 'x'.repeat(100_000);
    let count = 0;
    while (child.process.send({ text })) count++;
    assert.ok(count < 100, `after ${count}`);
    await child.send({ end: true });
    assert.equal(await child.next(), 'all');
    await child.end();
  });

  promise('throws for what cannot be serialised, and sends nothing of it', async (fork) => {
    const circular: { self?: unknown } = {};
    circular.self = circular;
    const json = forked(fork, STAY);
    const send = (child: Forked, ...args: unknown[]): string =>
      codeOf(() => Reflect.apply(child.process.send as never, child.process, args));
    assert.deepEqual(
      [undefined, () => {}, Symbol('s'), 5n, circular, { a: 5n }].map((message) =>
        send(json, message),
      ),
      [
        'ERR_MISSING_ARGS',
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'ERR_INVALID_ARG_TYPE',
        'TypeError',
        'TypeError',
      ],
    );
    assert.equal(send(json, 'x', {}), 'ERR_INVALID_HANDLE_TYPE');
    assert.equal(send(json, 'x', undefined, 5), 'ERR_INVALID_ARG_TYPE');
    const advanced = forked(fork, STAY, { serialization: 'advanced' });
    const thrown = [{ f: () => {} }, { s: Symbol('s') }, new WeakMap(), Promise.resolve()];
    assert.deepEqual(
      thrown.map((message) => send(advanced, message)),
      ['Error', 'Error', 'Error', 'Error'],
    );
    for (const child of [json, advanced]) {
      child.process.send('fine');
      assert.equal(await child.next(), 'fine');
      await child.end();
    }
  });

  promise('throws what a getter or toJSON throws, and calls each once', async (fork) => {
    for (const serialization of ['json', 'advanced'] as const) {
      const child = forked(fork, STAY, { serialization });
      let reads = 0;
      const counting = {
        get value() {
          return ++reads;
        },
      };
      child.process.send(counting);
      assert.deepEqual(await child.next(), { value: 1 });
      const failing = {
        get value() {
          throw new RangeError('mine');
        },
      };
      assert.equal(
        codeOf(() => child.process.send(failing)),
        'RangeError',
      );
      await child.end();
    }
  });

  promise('keeps from the program what Node keeps for itself', async (fork) => {
    const child = forked(
      fork,
      `process.on('message', (m) => process.send(m));
      process.on('internalMessage', (m) => process.send({ internal: m.cmd })); process.send('up')`,
    );
    await child.next();
    child.process.send({ cmd: 'NODE_foo' });
    child.process.send({ cmd: 'NODE_' });
    assert.deepEqual(
      [await child.next(), await child.next()],
      [{ internal: 'NODE_foo' }, { cmd: 'NODE_' }],
    );
    await child.end();
  });

  promise('sends primitives, and in mode json what JSON makes of the rest', async (fork) => {
    const child = forked(fork, STAY);
    const bytes = Buffer.from([1, 2]);
    const sent = [
      0,
      -1.5,
      '',
      'ä\n\u2028😀',
      true,
      null,
      [],
      { a: undefined, b: [undefined, NaN] },
      new Date(0),
      new Map([[1, 2]]),
      bytes,
      { bytes: new Uint8Array([3, 4]), buffer: new ArrayBuffer(2) },
    ];
    for (const message of sent) child.process.send(message as object);
    for (const message of sent) {
      assert.deepEqual(await child.next(), JSON.parse(JSON.stringify(message)));
    }
    await child.end();
  });

  promise('sends, in mode advanced, what structured clone knows', async (fork) => {
    const child = forked(fork, STAY, { serialization: 'advanced' });
    const shared = { x: 1 };
    const circular: Record<string, unknown> = { shared, again: shared };
    circular.self = circular;
    const sent = [
      5n,
      undefined,
      new Map<unknown, unknown>([[shared, new Set([1])]]),
      new Date(5),
      /a+/gi,
      new RangeError('range'),
      new Float64Array([1.5, -0]),
      new BigInt64Array([5n]),
      new Uint8ClampedArray([300]),
      new Int16Array([-2]),
      Buffer.from('buffer'),
      new Uint8Array(3),
      new DataView(new ArrayBuffer(5), 1, 3),
      new ArrayBuffer(4),
      Object.assign([], { 0: 1, 2: 3 }),
      circular,
    ];
    for (const value of sent) child.process.send({ value });
    for (const value of sent) {
      const message: { value: never } = await child.next();
      if (value instanceof Error) {
        assert.deepEqual(
          [(message.value as unknown) instanceof RangeError, (message.value as Error).message],
          [true, 'range'],
        );
      } else assert.deepEqual(message.value, value);
    }
    await child.end();
  });

  promise('gives messages to several listeners, and to once', async (fork) => {
    const child = forked(fork, STAY);
    const seen: unknown[] = [];
    child.process.on('message', (message) => seen.push(message));
    const first = once(child.process, 'message');
    child.process.send('a');
    child.process.send('b');
    assert.deepEqual([await child.next(), await child.next()], ['a', 'b']);
    assert.deepEqual([seen, (await first)[0]], [['a', 'b'], 'a']);
    await child.end();
  });

  promise('reports a child that is dead to the callback, or as an error event', async (fork) => {
    const child = forked(fork, STAY);
    await once(child.process, 'spawn');
    child.process.kill('SIGKILL');
    await child.closed;
    await assert.rejects(child.send('x'), { code: 'ERR_IPC_CHANNEL_CLOSED' });
    assert.equal(child.process.send('y'), false);
    await new Promise(setImmediate);
    assert.deepEqual(
      child.errors.map(({ code }) => code),
      ['ERR_IPC_CHANNEL_CLOSED'],
    );
  });
});
