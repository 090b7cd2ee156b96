// Requests and replies over a channel: each is answered once, by what belongs to it, or told why not.
import assert from 'node:assert/strict';
import type { Channel } from '../../../../src/channel/channel.js';
import type { Message } from '../../../../src/channel/message.js';
import { UkshmError } from '../../../../src/core/errors.js';
import type { Scenario } from '../explore/scenario.js';
import { Pair, type PairOptions, payload } from './pair.js';

interface RequestCase extends PairOptions {
  readonly name: string;
  /** Requests that are under way together. */
  readonly count: number;
  /** Bytes of a request, and of its reply. */
  readonly lengthBytes: number;
  /** The last one is answered first. */
  readonly backwards?: boolean;
  /** The first one is given up when the last one has its reply. */
  readonly abandons?: boolean;
  /** The server closes when it has answered so many. */
  readonly answers?: number;
  /** Who may die at each of its steps. */
  readonly mortal?: 'asker' | 'server';
}

type Answer = 'replied' | 'abandoned' | 'failed';

/** What a request may be told where its reply does not come. */
function reasonOf(error: unknown, reason: Error): Answer {
  if (error === reason) return 'abandoned';
  assert.ok(error instanceof UkshmError, String(error));
  const codes = ['ERR_UKSHM_PEER_GONE', 'ERR_UKSHM_PEER_CLOSED'];
  assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
  return 'failed';
}

function requestScenario(options: RequestCase): Scenario {
  const {
    name,
    count,
    lengthBytes,
    backwards = false,
    abandons = false,
    answers,
    mortal,
  } = options;
  return {
    name,
    small: count === 1,
    setUp: (world) => {
      const reason = new Error('given up');
      const outcomes: Answer[] = [];
      let served = 0;
      const asker = world.party('asker', async () => {
        const channel = pair.openLeft();
        const abort = new AbortController();
        const ask = async (n: number): Promise<void> => {
          const given = abandons && n === 0 ? { signal: abort.signal } : undefined;
          try {
            const reply = await channel.request(payload(n, lengthBytes), given);
            assert.deepEqual(reply.copy(), payload(n + 8, lengthBytes), 'its own reply');
            reply.release();
            outcomes[n] = 'replied';
          } catch (error) {
            outcomes[n] = reasonOf(error, reason);
          }
        };
        const asked: Promise<void>[] = [];
        for (let n = 0; n < count; n++) asked.push(ask(n));
        if (abandons) {
          await asked[count - 1];
          abort.abort(reason);
          // Its reply is still to come, and must not be taken for that of another.
          await ask(count);
        }
        await Promise.all(asked);
        await channel.close();
      });
      const server = world.party('server', async () => {
        const channel = pair.openRight();
        try {
          await serve(channel);
        } catch (error) {
          reasonOf(error, reason);
        }
        await channel.close();
      });
      const serve = async (channel: Channel): Promise<void> => {
        const waiting: [Message, number][] = [];
        for await (const request of channel) {
          assert.deepEqual(request.copy(), payload(served, lengthBytes), 'asked once, in order');
          waiting.push([request, served++]);
          if (backwards && served < count) continue;
          for (const [asked, n] of waiting.splice(0).reverse()) {
            await asked.reply(payload(n + 8, lengthBytes));
          }
          if (served === answers) return;
        }
      };
      const pair = new Pair(world, asker, server, options);
      if (mortal !== undefined) world.mayDie(mortal === 'asker' ? asker : server);
      return () => {
        if (asker.dead) return;
        assert.equal(outcomes.length, abandons ? count + 1 : count);
        for (const [n, outcome] of outcomes.entries()) {
          const unanswered = server.dead || (answers !== undefined && n >= answers);
          if (outcome === 'failed') assert.ok(unanswered, `request ${n} failed`);
          if (outcome === 'abandoned') assert.ok(abandons && n === 0, `request ${n} was given up`);
        }
      };
    },
  };
}

export const scenarios: readonly Scenario[] = [
  requestScenario({ name: 'request, one', count: 1, lengthBytes: 8 }),
  requestScenario({
    name: 'request, answered backwards',
    count: 3,
    lengthBytes: 8,
    backwards: true,
    ringBytes: 128,
  }),
  requestScenario({ name: 'request, small ring', count: 3, lengthBytes: 8 }),
  requestScenario({
    name: 'request, chunks',
    count: 2,
    lengthBytes: 40,
    ringBytes: 128,
    arenaBytes: 8192,
  }),
  requestScenario({
    name: 'request, given up',
    count: 2,
    lengthBytes: 8,
    backwards: true,
    abandons: true,
    ringBytes: 128,
  }),
  requestScenario({ name: 'request, the server closes', count: 2, lengthBytes: 8, answers: 1 }),
  requestScenario({ name: 'request, the server dies', count: 2, lengthBytes: 8, mortal: 'server' }),
  requestScenario({ name: 'request, the asker dies', count: 2, lengthBytes: 8, mortal: 'asker' }),
];
