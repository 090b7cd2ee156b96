// Processes that publish and subscribe, for the tests of topics and latest values.
import { spawn } from 'node:child_process';
import { Actor, type ActorOptions, fixture, type Owner } from './actors.js';
import type { TopicOperations } from './fixtures/topic-actor.js';

type Result<Name extends keyof TopicOperations> = Awaited<ReturnType<TopicOperations[Name]>>;

/** As `Actor`, with the operations of topic-actor.ts. */
export class TopicActor {
  readonly #actor: Actor;

  constructor(actor: Actor) {
    this.#actor = actor;
  }

  get pid(): number {
    return this.#actor.pid;
  }

  call<Name extends keyof TopicOperations>(
    name: Name,
    ...args: Parameters<TopicOperations[Name]>
  ): Promise<Result<Name>> {
    const call = this.#actor.call.bind(this.#actor) as (...all: unknown[]) => Promise<unknown>;
    return call(name, ...args) as Promise<Result<Name>>;
  }

  kill(signal?: NodeJS.Signals): void {
    this.#actor.kill(signal);
  }

  get exited(): Promise<unknown> {
    return this.#actor.exited;
  }
}

/** Starts one; it is killed at the end of the test. */
export async function startTopicActor(
  context: Owner,
  options: ActorOptions = {},
): Promise<TopicActor> {
  const child = spawn(process.execPath, [fixture('topic-actor')], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    serialization: 'advanced',
    uid: options.uid,
    gid: options.uid,
  });
  const actor = new Actor(child);
  context.after(async () => {
    child.kill('SIGKILL');
    await actor.exited;
  });
  await actor.ready;
  return new TopicActor(actor);
}

/** Starts so many. */
export function startTopicActors(context: Owner, count: number): Promise<TopicActor[]> {
  return Promise.all(Array.from({ length: count }, () => startTopicActor(context)));
}
