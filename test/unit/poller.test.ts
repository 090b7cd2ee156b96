import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../../src/abi/epoll.js';
import { closeDescriptor } from '../../src/sys/memory.js';
import { poller } from '../../src/sys/poller.js';
import {
  accept,
  bind,
  connectSocket,
  receive,
  send,
  startListening,
  unixAddress,
  unixSocket,
} from '../../src/sys/socket.js';
import { askFixture } from './tools.js';

let names = 0;

/** Two ends of one connection. */
function pair(): [number, number] {
  const server = unixSocket();
  const address = unixAddress(`unit-poller-${process.pid}-${names++}`, true);
  assert.equal(bind(server, address), 0);
  assert.equal(startListening(server, 1), 0);
  const one = unixSocket();
  assert.equal(connectSocket(one, address), 0);
  const other = accept(server);
  assert.ok(other >= 0);
  closeDescriptor(server);
  return [one, other];
}

/** Some turns of the event loop. */
async function turns(): Promise<void> {
  for (let i = 0; i < 5; i++) await sleep(1);
}

const BYTE = new Uint8Array([7]);

describe('the poller', () => {
  // Nothing else keeps the tests' event loop alive while a promise of theirs waits.
  beforeEach(() => poller().ref());
  afterEach(() => poller().unref());

  it('calls back as long as something is there to be read, and with what', async () => {
    const [one, other] = pair();
    const events: number[] = [];
    poller().watch(other, EPOLLIN, (ready) => {
      events.push(ready);
      if (events.length === 3) receive(other, new Uint8Array(8));
    });
    await turns();
    assert.deepEqual(events, []);
    send(one, BYTE);
    await turns();
    assert.deepEqual(events, [EPOLLIN, EPOLLIN, EPOLLIN]);
    poller().unwatch(other);
    closeDescriptor(one);
    closeDescriptor(other);
  });

  it('reports the events that are asked for, as they change, and a hang-up always', async () => {
    const [one, other] = pair();
    let seen = 0;
    poller().watch(other, EPOLLRDHUP, (ready) => {
      seen |= ready;
    });
    send(one, BYTE);
    await turns();
    assert.equal(seen, 0);
    poller().change(other, EPOLLIN | EPOLLOUT);
    await turns();
    assert.equal(seen, EPOLLIN | EPOLLOUT);
    poller().change(other, 0);
    seen = 0;
    closeDescriptor(one);
    await turns();
    assert.equal(seen & EPOLLHUP, EPOLLHUP);
    poller().unwatch(other);
    closeDescriptor(other);
  });

  it('is silent about a descriptor that is watched no more', async () => {
    const [one, other] = pair();
    let calls = 0;
    poller().watch(other, EPOLLIN, () => calls++);
    poller().unwatch(other);
    poller().unwatch(other);
    send(one, BYTE);
    await turns();
    assert.equal(calls, 0);
    closeDescriptor(one);
    closeDescriptor(other);
  });

  it('gives no event of a closed descriptor to the next one of its number', async () => {
    // Both are ready in one batch; the first callback closes both and opens others, which get the
    // same numbers.
    const [a, readyA] = pair();
    const [b, readyB] = pair();
    const seen: string[] = [];
    const fresh: number[] = [];
    const onReady = (): void => {
      seen.push('old');
      for (const fd of [readyA, readyB]) {
        poller().unwatch(fd);
        closeDescriptor(fd);
      }
      for (const fd of pair()) {
        fresh.push(fd);
        poller().watch(fd, EPOLLIN, () => seen.push('new'));
      }
    };
    poller().watch(readyA, EPOLLIN, onReady);
    poller().watch(readyB, EPOLLIN, onReady);
    send(a, BYTE);
    send(b, BYTE);
    await turns();
    assert.deepEqual(seen, ['old']);
    assert.ok(fresh.includes(readyA) || fresh.includes(readyB), 'a number came again');
    send(fresh[0], BYTE);
    await turns();
    assert.ok(seen.includes('new'));
    for (const fd of fresh) poller().unwatch(fd);
    for (const fd of [...fresh, a, b]) closeDescriptor(fd);
  });

  it('runs what a callback defers in the same turn, behind all microtasks', async () => {
    const [one, other] = pair();
    const order: string[] = [];
    poller().watch(other, EPOLLIN, () => {
      receive(other, new Uint8Array(8));
      setImmediate(() => order.push('next phase'));
      poller().defer(() => order.push('deferred'));
      Promise.resolve()
        .then(() => order.push('microtask'))
        .then(() => order.push('its microtask'));
      process.nextTick(() => order.push('tick'));
    });
    send(one, BYTE);
    await turns();
    assert.deepEqual(order.slice(-2), ['deferred', 'next phase']);
    assert.deepEqual(order.slice(0, -2).sort(), ['its microtask', 'microtask', 'tick']);
    poller().unwatch(other);
    closeDescriptor(one);
    closeDescriptor(other);
  });

  it('hands out more events than one batch holds', async () => {
    const pairs = Array.from({ length: 300 }, pair);
    const seen = new Set<number>();
    for (const [one, other] of pairs) {
      poller().watch(other, EPOLLIN, () => {
        seen.add(other);
        receive(other, new Uint8Array(8));
      });
      send(one, BYTE);
    }
    for (let i = 0; i < 100 && seen.size < 300; i++) await turns();
    assert.equal(seen.size, 300);
    for (const [one, other] of pairs) {
      poller().unwatch(other);
      closeDescriptor(one);
      closeDescriptor(other);
    }
  });
});

describe('the event loop', () => {
  const cases: readonly [string, string, string[]][] = [
    ['is not kept by a watch alone', 'watched', []],
    ['is kept by refs until the last unref', 'refed', ['still there']],
    ['is kept by an open object until its end', 'keep-alive', ['still there']],
    ['is not kept by an unrefed listener', 'unrefed', []],
    ['goes on behind a callback that throws', 'throws', ['of a callback', 'the other']],
  ];
  for (const [name, action, expected] of cases) {
    it(name, async () => {
      const said = await askFixture<string[]>('alive', [action]);
      if (action === 'watched') assert.ok(!said.includes('still there'));
      else assert.deepEqual(said.sort(), expected);
    });
  }
});
