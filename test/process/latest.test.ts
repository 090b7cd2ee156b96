// Goal: readers in other processes always have the newest value, whole, without asking anybody;
// whoever waits for changes is told of each key once; and nobody's end or lie harms another.
import assert from 'node:assert/strict';
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../src/index.js';
import { HEAD_INDEX, RELEASE_TAIL_INDEX, TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import {
  openValues,
  readValues,
  type ValueReader,
  type ValuesOptions,
  type ValueWriter,
} from '../../src/patterns/latest/index.js';
import { subscribe } from '../../src/patterns/topic/index.js';
import { send } from '../../src/sys/socket.js';
import { boundSockets, codeOf, uniqueName, until } from './actors.js';
import { endAll, folderFor, isPending, listenFor } from './local.js';
import { hungUp, rawConnect } from './raw-peer.js';
import { startTopicActors, type TopicActor } from './topic-actors.js';

const OPTIONS = { timeout: 30_000 };

async function writerFor(
  context: TestContext,
  options?: ValuesOptions,
  name: string = uniqueName('values'),
): Promise<ValueWriter> {
  const writer = await openValues(name, options);
  context.after(() => writer.close());
  return writer;
}

async function readerFor(context: TestContext, name: string): Promise<ValueReader> {
  const reader = await readValues(name);
  context.after(() => reader.close());
  return reader;
}

function text(value: Uint8Array | undefined): string | undefined {
  return value && Buffer.from(value).toString();
}

describe('latest values', () => {
  it('are there for readers that come before and after', OPTIONS, async (t) => {
    const writer = await writerFor(t, { maxKeys: 500, valueBytesMax: 64 });
    const early = await readerFor(t, writer.name);
    assert.deepEqual(early.keys(), []);
    for (let i = 0; i < 500; i++) writer.set(`key ${i}`, Buffer.from(`value ${i}`));
    const late = await readerFor(t, writer.name);
    for (const reader of [early, late]) {
      for (let i = 0; i < 500; i++) assert.equal(text(reader.get(`key ${i}`)), `value ${i}`);
      assert.equal(reader.keys().length, 500);
      assert.equal(reader.get('key 500'), undefined);
    }
    assert.equal(writer.size, 500);
    assert.deepEqual([...writer.keys()].length, 500);
    assert.equal(writer.readerCount, 2);
    assert.deepEqual([writer.has('key 1'), writer.delete('key 1')], [true, true]);
    assert.deepEqual([writer.has('key 1'), writer.delete('key 1')], [false, false]);
    assert.equal(early.get('key 1'), undefined);
    writer.set('one more', Buffer.from('x'));
    assert.throws(() => writer.set('too many', Buffer.from('x')), /maxKeys/);
    assert.throws(() => writer.set('one more', new Uint8Array(65)), /valueBytesMax/);
    const target = new Uint8Array(64);
    assert.equal(late.getInto('one more', target), 1);
    assert.equal(target[0], 'x'.charCodeAt(0));
    assert.ok((late.version('one more') ?? 0) > 0);
  });

  it(
    'are whole and never older than before, while they are set all the time',
    OPTIONS,
    async (t) => {
      const [writer, ...readers] = (await startTopicActors(t, 3)) as [TopicActor, ...TopicActor[]];
      const name = uniqueName('torn');
      await writer.call('openValues', name, { maxKeys: 4, valueBytesMax: 4096 });
      await Promise.all(readers.map((one) => one.call('readValues', name, 'r')));
      const setting = writer.call('setAllTheTime', name, 4, 4096, 1000);
      const reading = readers.map((one) => one.call('getAllTheTime', 'r', 4, 1000));
      const last = await setting;
      for (const { reads, wrong, newest } of await Promise.all(reading)) {
        t.diagnostic(`${reads} reads, ${last} sets of each key`);
        assert.equal(wrong, 0);
        assert.ok(reads > 100 && newest > 10);
      }
      for (const one of readers) {
        assert.equal(await one.call('get', 'r', '3'), last, 'the newest');
      }
    },
  );

  it('outlive their writer, killed while it set them', OPTIONS, async (t) => {
    const [reader] = (await startTopicActors(t, 1)) as [TopicActor];
    for (let round = 0; round < 3; round++) {
      const [writer] = (await startTopicActors(t, 1)) as [TopicActor];
      const name = uniqueName('killed');
      await writer.call('openValues', name, { maxKeys: 8, valueBytesMax: 65536 });
      await reader.call('readValues', name, 'r');
      const following = reader.call('follow', 'r');
      void writer.call('setAllTheTime', name, 8, 65536, 60_000);
      await until('it sets', async () => (await reader.call('get', 'r', '7')) !== undefined);
      await sleep(20 * round);
      writer.kill();
      const { last, code, count } = await following;
      assert.equal(code, 'ERR_UKSHM_PEER_GONE');
      assert.ok(count > 0);
      for (let key = 0; key < 8; key++) {
        const value = (await reader.call('get', 'r', `${key}`)) ?? -1;
        assert.ok(value > 0, 'whole');
        assert.equal(last[key], value, 'and what was told last');
      }
      await reader.call('closeReader', 'r');
      assert.equal((await reader.call('usage')).memfds, 0);
      assert.deepEqual(boundSockets(name), []);
    }
  });

  it('stay readable when their writer closes, until the reader does', OPTIONS, async (t) => {
    const writer = await writerFor(t);
    const reader = await readerFor(t, writer.name);
    writer.set('a', Buffer.from('last'));
    const changes: string[] = [];
    const reading = (async () => {
      for await (const { key, value } of reader) changes.push(`${key}=${text(value)}`);
    })();
    await writer.close();
    await writer.close();
    await reading;
    assert.deepEqual(changes, ['a=last']);
    assert.equal((await reader.closed).reason, 'peer-closed');
    assert.equal(text(reader.get('a')), 'last');
    assert.deepEqual(reader.takeChanges(), []);
    assert.throws(() => writer.set('a', Buffer.from('later')), /is closed/);
    assert.equal(await reader.changed(), false);
    await reader.close();
    assert.throws(() => reader.get('a'), /is closed/);
    assert.equal(await codeOf(reader.changed()), 'ERR_UKSHM_CLOSED');
    assert.equal(await codeOf(readValues(writer.name)), 'ERR_UKSHM_NO_LISTENER');
  });
});

describe('changes', () => {
  it('wake whoever waits, and come together', OPTIONS, async (t) => {
    const writer = await writerFor(t);
    const reader = await readerFor(t, writer.name);
    const waiting = reader.changed();
    assert.ok(await isPending(waiting));
    for (let i = 0; i < 1000; i++) writer.set(`${i % 3}`, Buffer.from(`${i}`));
    assert.equal(await waiting, true);
    const told = reader.takeChanges().map(({ key, value }) => [key, text(value)]);
    assert.deepEqual(told, [
      ['0', '999'],
      ['1', '997'],
      ['2', '998'],
    ]);
    const controller = new AbortController();
    const idle = reader.changed({ signal: controller.signal });
    assert.ok(await isPending(idle));
    controller.abort();
    assert.equal(await codeOf(idle), 'AbortError');
    writer.delete('1');
    for await (const { key, value, version } of reader) {
      assert.deepEqual([key, value, version], ['1', undefined, undefined]);
      break;
    }
    const signal = AbortSignal.timeout(20);
    assert.equal(await codeOf(reader.changed({ signal })), 'TimeoutError');
  });

  it('reach many readers, each at least with the last', OPTIONS, async (t) => {
    const [writer, ...actors] = (await startTopicActors(t, 3)) as [TopicActor, ...TopicActor[]];
    const name = uniqueName('many');
    await writer.call('openValues', name, { maxKeys: 300, valueBytesMax: 64 });
    const following: Promise<{ last: Record<string, number>; code: string; count: number }>[] = [];
    for (const actor of actors) {
      const join = async (i: number): Promise<void> => {
        await actor.call('readValues', name, `r${i}`);
        following.push(actor.call('follow', `r${i}`));
      };
      for (let i = 0; i < 60; i += 20) {
        await Promise.all(Array.from({ length: 20 }, (_, k) => join(i + k)));
      }
    }
    assert.equal(await writer.call('readerCount', name), 120);
    const last = await writer.call('setAllTheTime', name, 300, 64, 300);
    await writer.call('set', name, '0', last + 1, 64);
    await writer.call('closeValues', name);
    for (const { last: told, code } of await Promise.all(following)) {
      assert.equal(code, 'end');
      assert.equal(Object.keys(told).length, 300);
      assert.equal(told[0], last + 1);
      assert.equal(told[299], last);
    }
  });

  it('are not waited for: a stopped reader harms nobody', OPTIONS, async (t) => {
    const [stopped, live] = (await startTopicActors(t, 2)) as [TopicActor, TopicActor];
    const writer = await writerFor(t, { maxKeys: 2 });
    await stopped.call('readValues', writer.name, 'r');
    await live.call('readValues', writer.name, 'r');
    const following = [stopped.call('follow', 'r'), live.call('follow', 'r')];
    stopped.kill('SIGSTOP');
    for (let i = 1; i <= 2000; i++) {
      writer.set('0', new Uint8Array(new Uint32Array(16).fill(i).buffer));
      if (i % 100 === 0) await sleep(1);
    }
    await until('the other has the last', async () => (await live.call('get', 'r', '0')) === 2000);
    stopped.kill('SIGCONT');
    await until('so has this', async () => (await stopped.call('get', 'r', '0')) === 2000);
    await writer.close();
    for (const { last } of await Promise.all(following)) assert.equal(last[0], 2000);
  });

  it('cost a reader that sleeps nothing', OPTIONS, async (t) => {
    const [reader] = (await startTopicActors(t, 1)) as [TopicActor];
    const writer = await writerFor(t, { maxKeys: 2 });
    await reader.call('readValues', writer.name, 'r');
    const following = reader.call('follow', 'r');
    await sleep(300);
    const before = await reader.call('cpuMicros');
    await sleep(1000);
    const share = ((await reader.call('cpuMicros')) - before) / 1e6;
    assert.ok(share < 0.02, `${share * 100} % of a core`);
    await writer.close();
    await following;
  });
});

describe('readers', () => {
  it('come and go and leave nothing', OPTIONS, async (t) => {
    const [writer, client] = (await startTopicActors(t, 2)) as [TopicActor, TopicActor];
    const name = uniqueName('come-and-go');
    await writer.call('openValues', name, { maxKeys: 16 });
    await writer.call('set', name, 'k', 7, 64);
    const round = async (id: number): Promise<void> => {
      await client.call('readValues', name, `r${id}`);
      assert.equal(await client.call('get', `r${id}`, 'k'), 7);
      await client.call('closeReader', `r${id}`);
    };
    const rounds = async (first: number, count: number): Promise<void> => {
      for (let id = first; id < first + count; id += 5) {
        await Promise.all([0, 1, 2, 3, 4].map((i) => round(id + i)));
      }
    };
    await rounds(0, 10);
    const before = [await writer.call('usage'), await client.call('usage')];
    await rounds(100, 150);
    for (const [i, actor] of [writer, client].entries()) {
      await until('as much is open as before', async () => {
        const { fds, memfds } = await actor.call('usage');
        return fds <= (before[i]?.fds ?? 0) && memfds <= (before[i]?.memfds ?? 0);
      });
    }
    assert.equal(await writer.call('readerCount', name), 0);
  });

  it('are bounded, and told what is not there', OPTIONS, async (t) => {
    const writer = await writerFor(t, { maxReaders: 1 });
    const reader = await readerFor(t, writer.name);
    assert.equal(await codeOf(readValues(writer.name)), 'ERR_UKSHM_LIMIT');
    await reader.close();
    await until('it has gone', () => writer.readerCount === 0);
    assert.equal(await codeOf(subscribe(writer.name)), 'ERR_UKSHM_NOT_OFFERED');
    assert.equal(await codeOf(openValues(writer.name)), 'ERR_UKSHM_NAME_IN_USE');
    for (const options of [{ maxKeys: 0 }, { valueBytesMax: -1 }, { maxReaders: 0 }]) {
      assert.equal(await codeOf(openValues('never', options)), 'ERR_UKSHM_INVALID_ARGUMENT');
    }
    const huge = { maxKeys: 65536, valueBytesMax: 65536 };
    assert.equal(await codeOf(openValues('never', huge)), 'ERR_UKSHM_INVALID_ARGUMENT');
    const folder = folderFor(t);
    const moved = await writerFor(t, {}, join(folder, 'old'));
    renameSync(moved.name, join(folder, 'new'));
    assert.equal(await codeOf(readValues(join(folder, 'new'))), 'ERR_UKSHM_NOT_OFFERED');
  });

  const lies: readonly (readonly [string, number, number])[] = [
    ['that releases what it was not lent', RELEASE_TAIL_INDEX, 2],
    ['that has read what was not sent', HEAD_INDEX, 64],
  ];
  for (const [what, index, value] of lies) {
    it(`${what} loses its own channel`, OPTIONS, async (t) => {
      const writer = await writerFor(t);
      const honest = await readerFor(t, writer.name);
      const raw = await rawConnect(writer.name);
      t.after(() => raw.close());
      const request = Buffer.from(JSON.stringify({ values: writer.name }).padEnd(64));
      raw.record(0, request.length, 1, ...new Int32Array(new Uint8Array(request).buffer));
      raw.store(TAIL_INDEX, 8 + request.length);
      raw.ring();
      send(raw.fd, Uint8Array.of(3, 1, 0, 0, 0, 1, 0, 0, 0));
      await until('it is admitted', () => writer.readerCount === 2);
      raw.store(index, value);
      raw.ring();
      await until('it is gone', async () => {
        writer.set('k', Buffer.from('v'));
        await sleep(1);
        return writer.readerCount === 1;
      });
      await hungUp(raw.fd);
      assert.equal(text(honest.get('k')), 'v');
    });
  }
});

describe('a hostile writer', () => {
  it('is not believed about its table', OPTIONS, async (t) => {
    const listener = await listenFor(t);
    for (const [type, bytes] of [
      [1, new Uint8Array(5000)],
      [1, Buffer.from('{}')],
      [7, Buffer.from('{}')],
      [2, Buffer.from('{"code":3}')],
    ] as const) {
      const reading = codeOf(readValues(listener.name));
      const channel = await listener.accept();
      await channel.send(bytes, { type });
      assert.equal(await reading, 'ERR_UKSHM_PEER_MISBEHAVED');
      await endAll(channel);
    }
    const reading = codeOf(readValues(listener.name, { timeoutMs: 500 }));
    assert.equal(await reading, 'ERR_UKSHM_TIMEOUT');
  });

  it('has the channel ended by the reader that finds it out', OPTIONS, async (t) => {
    // The table of an honest writer, in a record of a liar.
    const { tableLayout } = await import('../../src/patterns/latest/layout.js');
    const { TableWriter } = await import('../../src/patterns/latest/table-writer.js');
    const listener = await listenFor(t);
    const layout = tableLayout(4, 64);
    const connecting = readValues(listener.name);
    const channel = await listener.accept();
    t.after(() => endAll(channel));
    const loan = await channel.loan(layout.totalBytes, { type: 1 });
    loan.bytes.fill(0);
    const table = new TableWriter(loan.bytes, layout);
    table.set('a', Buffer.from('true'));
    const { bytes } = loan;
    loan.send();
    const reader = await connecting;
    t.after(() => reader.close());
    assert.equal(text(reader.get('a')), 'true');
    for (let at = layout.buffersOffset; at < bytes.length; at += layout.bufferBytes) {
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, 65, true);
    }
    assert.throws(() => reader.get('a'), /a value of 65 bytes/);
    assert.equal((await reader.closed).reason, 'peer-misbehaved');
    assert.throws(() => reader.get('a'), { code: 'ERR_UKSHM_CLOSED' });
  });

  it('that asks for values in a plain channel is answered', OPTIONS, async (t) => {
    const writer = await writerFor(t);
    const channel = await connect(writer.name);
    t.after(() => endAll(channel));
    await channel.send(Buffer.from('{"values":7}'), { type: 1 });
    for await (const message of channel) {
      assert.equal((message.json() as { code: string }).code, 'ERR_UKSHM_NOT_OFFERED');
      message.release();
    }
  });
});
