// Goal: topics in TypeScript, C and Python understand each other, in all pairs and both roles: what
// is published arrives whole, in order, in place; each policy does what it says; and a subscriber
// that is killed, stopped or late harms nobody else.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Owner, stopPid, uniqueName, until } from '../process/actors.js';
import {
  compileSanitized,
  type Event,
  Language,
  pythonProgram,
  type Running,
  typescriptProgram,
} from './languages.js';

const OPTIONS = { timeout: 60_000 };
/** Small ones, which are copied into each ring, and others, which all map. */
const MIXED = '0,1,100,2048,2049,20000,300000';
const MIXED_SUM = 324_198;

const folder = mkdtempSync(join(tmpdir(), 'ukshm-topics-'));
after(() => rmSync(folder, { recursive: true }));
compileSanitized('topic_actor.c', join(folder, 'topic_actor'));

const typescript = typescriptProgram('./topic-actor.js');
const c = new Language('C', [join(folder, 'topic_actor')]);
const python = pythonProgram('topic_actor.py', '-X', 'dev', '-W', 'error');
const languages = [typescript, c, python].filter(({ missing }) => missing === undefined);

/** Says it has read its standard input. */
function endInput(running: Running): void {
  running.child.stdin?.end();
}

async function published(publisher: Running): Promise<Event> {
  const said = (): Event | undefined =>
    publisher.events.find(({ event }) => event === 'published' || event === 'error');
  await until('all is published', () => said() !== undefined);
  assert.equal(said()?.event, 'published', said()?.message);
  return said() as Event;
}

/** Closes the topic, and expects the publisher to end well. */
async function closes(publisher: Running, messages: number, bytes: number): Promise<void> {
  endInput(publisher);
  const last = await publisher.ended;
  assert.equal(last?.event, 'done', last?.message);
  assert.deepEqual([last?.messages, last?.bytes], [messages, bytes]);
}

async function saw(subscriber: Running, expected: Partial<Event>): Promise<void> {
  const last = await subscriber.ended;
  assert.equal(last?.event, 'done', last?.message);
  const { messages, first, missed, code } = last ?? {};
  assert.deepEqual({ messages, first, missed, code }, { code: 'end', missed: 0, ...expected });
}

function subscribe(owner: Owner, language: Language, name: string, ...args: string[]) {
  return language.startReady(owner, 'subscribe', name, ...args);
}

for (const publishing of languages) {
  for (const subscribing of languages) {
    describe(`${publishing.name} publishing, ${subscribing.name} subscribing`, () => {
      it('everything arrives, whole and in order', OPTIONS, async (t) => {
        const name = uniqueName('topics');
        const args = [name, '1', '210', '0', MIXED];
        const publisher = await publishing.startReady(t, 'publish', ...args);
        const subscriber = await subscribe(t, subscribing, name, 'block', '16', '3');
        assert.equal((await published(publisher)).subscribers, 1);
        await closes(publisher, 210, 30 * MIXED_SUM);
        await saw(subscriber, { messages: 210, first: 0 });
        assert.equal(subscriber.events.at(-1)?.bytes, 30 * MIXED_SUM);
      });

      it('a late one gets what is kept', OPTIONS, async (t) => {
        const name = uniqueName('topics');
        const publisher = await publishing.startReady(t, 'publish', name, '0', '20', '5', MIXED);
        await published(publisher);
        const [subscriber, shallow] = await Promise.all([
          subscribe(t, subscribing, name, 'drop-oldest', '256', '0'),
          subscribe(t, subscribing, name, 'disconnect', '2', '0'),
        ]);
        endInput(publisher);
        await saw(subscriber, { messages: 5, first: 15 });
        await saw(shallow, { messages: 2, first: 18 });
        assert.equal((await publisher.ended)?.event, 'done');
      });

      it("is told at once of the publisher's death", OPTIONS, async (t) => {
        const name = uniqueName('topics');
        const args = [name, '1', '1000000000', '0', MIXED];
        const publisher = await publishing.startReady(t, 'publish', ...args);
        const subscriber = await subscribe(t, subscribing, name, 'block', '16', '3');
        publisher.child.kill('SIGKILL');
        const last = await subscriber.ended;
        assert.equal(last?.event, 'done', last?.message);
        assert.equal(last?.code, 'ERR_UKSHM_PEER_GONE');
      });

      it('one that is killed or stopped holds nobody up', OPTIONS, async (t) => {
        const name = uniqueName('topics');
        const args = [name, '3', '400', '0', '100,20000'];
        const publisher = await publishing.startReady(t, 'publish', ...args);
        const [victim, stopped] = await Promise.all([
          subscribing.startReady(t, 'later', name, 'block', '3', '0'),
          subscribe(t, subscribing, name, 'drop-newest', '3', '0'),
        ]);
        stopPid(stopped.child.pid ?? 0);
        const reader = await subscribe(t, c, name, 'block', '8', '1');
        await sleep(50);
        victim.child.kill('SIGKILL');
        assert.equal((await published(publisher)).subscribers, 2);
        stopped.child.kill('SIGKILL');
        await closes(publisher, 400, 200 * 20_100);
        await saw(reader, { messages: 400, first: 0 });
      });
    });
  }
}

for (const publishing of languages) {
  describe(`${publishing.name} publishing to all languages`, () => {
    for (const size of ['100', '20000']) {
      it(`each policy does what it says: ${size} bytes`, OPTIONS, async (t) => {
        const name = uniqueName('topics');
        const wanted = `${3 * languages.length + 1}`;
        const publisher = await publishing.startReady(t, 'publish', name, wanted, '20', '0', size);
        const later = (slow: string): Promise<Running[]> =>
          Promise.all(languages.map((one) => one.startReady(t, 'later', name, slow, '3', '0')));
        const [newest, oldest, impatient] = await Promise.all([
          later('drop-newest'),
          later('drop-oldest'),
          later('disconnect'),
        ]);
        const reader = await subscribe(t, typescript, name, 'block', '8', '1');
        const left = (await published(publisher)).subscribers;
        assert.equal(left, 2 * languages.length + 1, 'some were disconnected');
        const all = [...newest, ...oldest, ...impatient];
        for (const one of all) endInput(one);
        await until('all read', () => all.every(({ events }) => events.length > 1));
        await closes(publisher, 20, 20 * Number(size));
        await saw(reader, { messages: 20, first: 0 });
        for (const one of newest) await saw(one, { messages: 3, first: 0, missed: 17 });
        for (const one of oldest) await saw(one, { messages: 6, first: 0, missed: 14 });
        const code = 'ERR_UKSHM_TOO_SLOW';
        for (const one of impatient) await saw(one, { messages: 3, first: 0, missed: 1, code });
      });
    }

    // Each holds two messages of a quarter of the memory: with the second, nothing more fits.
    it('goes on in fresh memory when living ones hold all of it', OPTIONS, async (t) => {
      const name = uniqueName('topics');
      const size = '4000000';
      const publisher = await publishing.startReady(t, 'publish', name, '1,2,3', '12', '1', size);
      const others = languages.filter((other) => other !== publishing);
      const [one = publishing, two = one] = others;
      const reader = await subscribe(t, two, name, 'block', '8', '0');
      const first = await one.startReady(t, 'later', name, 'drop-newest', '8', '1');
      await until('the first has what it takes', () => publisher.events.length > 2);
      const second = await two.startReady(t, 'later', name, 'drop-newest', '8', '1');
      assert.equal((await published(publisher)).subscribers, 1);
      for (const held of [first, second]) endInput(held);
      for (const held of [first, second]) {
        const last = await held.ended;
        assert.deepEqual(
          [last?.event, last?.messages, last?.code],
          ['done', 2, 'ERR_UKSHM_TOO_SLOW'],
          last?.message,
        );
      }
      await closes(publisher, 12, 48_000_000);
      await saw(reader, { messages: 12, first: 0 });
    });
  });
}

describe('topics in C', () => {
  it('have an example that does what it says', OPTIONS, () => {
    compileSanitized('example_topic.c', join(folder, 'example'));
    const printed = execFileSync(join(folder, 'example'), { encoding: 'utf8', timeout: 20_000 });
    assert.equal(printed, '5 frames of 1000000 bytes\n'.repeat(2));
  });
});

describe('topics in Python with asyncio', () => {
  it('arrive whole and in order, from both interfaces', OPTIONS, async (t) => {
    if (python.missing !== undefined) return t.skip(python.missing);
    for (const publishing of [typescript, python]) {
      const name = uniqueName('topics');
      const flag = publishing === python ? ['--asyncio'] : [];
      const args = [name, '2', '210', '3', MIXED, ...flag];
      const publisher = await publishing.startReady(t, 'publish', ...args);
      const one = await subscribe(t, python, name, 'block', '16', '3', '--asyncio');
      const two = await subscribe(t, c, name, 'block', '5', '1');
      await published(publisher);
      await closes(publisher, 210, 30 * MIXED_SUM);
      await saw(one, { messages: 210, first: 0 });
      await saw(two, { messages: 210, first: 0 });
    }
  });
});
