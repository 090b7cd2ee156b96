// Goal: a channel that has ended leaves nothing: no descriptor, no mapping, no memory, no name.
// Method: many connections, several at a time, each with a message both ways; then both processes
// are compared with what they were after the first few.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type Actor, boundSockets, sharedFiles, startActor, uniqueName, until } from './actors.js';
import type { Usage } from './fixtures/actor.js';

const OPTIONS = { timeout: 60_000 };
const CONNECTIONS = 1000;
const AT_A_TIME = 8;
const SMALL = { arenaBytes: 65536, ringBytes: 4096 };
/** What the garbage collector may keep for its own sake; the connections share 200 MB. */
const RESIDENT_SLACK_BYTES = 48 * 2 ** 20;
/** Pages of V8's heap that came and stayed; the connections have 12 000 mappings. */
const MAPPINGS_SLACK = 2000;

interface Both {
  readonly client: Actor;
  readonly server: Actor;
  readonly name: string;
}

async function startBoth(context: TestContext, label: string, options: object): Promise<Both> {
  const name = uniqueName(label);
  const [client, server] = await Promise.all([startActor(context), startActor(context)]);
  await server.call('listen', name, options);
  await server.call('echoAll', name);
  return { client, server, name };
}

/** Connections with a small and a large message both ways, closed from the client's side. */
async function connections({ client, name }: Both, first: number, count: number): Promise<void> {
  let next = first;
  const worker = async (): Promise<void> => {
    while (next < first + count) {
      const id = next++;
      const as = `c${id}`;
      await client.call('connect', name, as);
      await client.call('send', as, id % 2 === 0 ? 100 : 20_000, id);
      const [told] = await client.call('receive', as, 1);
      assert.ok(told?.right && told.id === id, `message ${id} came back wrong`);
      await client.call('close', as);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
}

async function expectSame(actor: Actor, before: Usage, who: string): Promise<string> {
  let after = await actor.call('usage');
  await until(`${who} has as many descriptors as before`, async () => {
    after = await actor.call('usage');
    return after.fds.length <= before.fds.length && after.memfds <= before.memfds;
  }).catch((error) => {
    assert.deepEqual(kinds(after), kinds(before), `${who}: ${error}`);
  });
  assert.deepEqual(kinds(after), kinds(before), who);
  assert.equal(after.memfds, before.memfds, `${who}: mappings of memfds`);
  const grown = after.residentBytes - before.residentBytes;
  assert.ok(grown < RESIDENT_SLACK_BYTES, `${who} grew by ${grown} bytes`);
  const mappings = after.mappings - before.mappings;
  assert.ok(mappings < MAPPINGS_SLACK, `${who} has ${mappings} mappings more`);
  return `${who}: ${Math.round(grown / 2 ** 10)} KiB and ${mappings} mappings more`;
}

/** What descriptors are of, without their numbers. */
function kinds({ fds }: Usage): string[] {
  return fds.map((fd) => fd.slice(fd.indexOf(' ') + 1)).sort();
}

describe('nothing is left', () => {
  it('of a thousand connections, opened and closed', OPTIONS, async (t) => {
    const files = sharedFiles();
    const both = await startBoth(t, 'leaks', SMALL);
    const { client, server, name } = both;
    await connections(both, 0, 5 * AT_A_TIME);
    const before = [await client.call('usage'), await server.call('usage')] as const;
    await connections(both, 1000, CONNECTIONS);
    t.diagnostic(await expectSame(client, before[0], 'the client'));
    t.diagnostic(await expectSame(server, before[1], 'the server'));
    await server.call('closeListener', name);
    assert.deepEqual(boundSockets(name), []);
    assert.deepEqual(sharedFiles(), files);
  });

  it('of clients that are killed', OPTIONS, async (t) => {
    const both = await startBoth(t, 'killed', SMALL);
    const { client, server, name } = both;
    await connections(both, 0, AT_A_TIME);
    const before = await server.call('usage');
    for (let round = 0; round < 5; round++) {
      const victim = await startActor(t);
      for (let i = 0; i < 4; i++) {
        await victim.call('connect', name, `k${i}`);
        // Half of them with messages under way in both directions.
        if (i % 2 === 0) void victim.call('flood', `k${i}`, 20_000).catch(() => {});
      }
      victim.kill();
      await victim.exited;
    }
    t.diagnostic(await expectSame(server, before, 'the server'));
    await connections(both, 1000, AT_A_TIME);
    await client.call('usage');
  });

  it('of servers that are killed', OPTIONS, async (t) => {
    const client = await startActor(t);
    const rounds: Promise<unknown>[] = [];
    let before: Usage | undefined;
    for (let round = 0; round < 4; round++) {
      const name = uniqueName('killed-server');
      const server = await startActor(t);
      await server.call('listen', name, SMALL);
      await server.call('echoAll', name);
      for (let i = 0; i < 4; i++) await client.call('connect', name, `s${round}-${i}`);
      for (let i = 0; i < 4; i++) rounds.push(client.call('flood', `s${round}-${i}`, 20_000));
      server.kill();
      await server.exited;
      assert.deepEqual(boundSockets(name), []);
      if (round > 0) continue;
      // What they had sent is theirs no more than ours: read to the end, so that it is freed.
      await Promise.all(rounds.splice(0));
      for (let i = 0; i < 4; i++) await client.call('receiveAll', `s${round}-${i}`);
      before = await client.call('usage');
    }
    for (let round = 1; round < 4; round++) {
      for (let i = 0; i < 4; i++) await client.call('receiveAll', `s${round}-${i}`);
    }
    await Promise.all(rounds);
    t.diagnostic(await expectSame(client, before as Usage, 'the client'));
  });
});
