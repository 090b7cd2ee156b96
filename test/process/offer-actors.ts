// Processes that offer and claim, and looks at their memory from outside, for the tests of offers.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { Actor, type ActorOptions, fixture, type Owner } from './actors.js';
import type { OfferOperations } from './fixtures/offer-actor.js';

type Result<Name extends keyof OfferOperations> = Awaited<ReturnType<OfferOperations[Name]>>;

/** What the kernel rounds to, and the least unit on this machine. */
export const UNIT_BYTES: number = process.arch === 'x64' ? 4096 : 65536;

/** As `Actor`, with the operations of offer-actor.ts. */
export class OfferActor {
  readonly #actor: Actor;

  constructor(actor: Actor) {
    this.#actor = actor;
  }

  get pid(): number {
    return this.#actor.pid;
  }

  call<Name extends keyof OfferOperations>(
    name: Name,
    ...args: Parameters<OfferOperations[Name]>
  ): Promise<Result<Name>> {
    const call = this.#actor.call.bind(this.#actor) as (...all: unknown[]) => Promise<unknown>;
    return call(name, ...args) as Promise<Result<Name>>;
  }

  kill(signal?: NodeJS.Signals): void {
    this.#actor.kill(signal);
  }

  get exited(): Promise<{ readonly status: number | null; readonly stderr: string }> {
    return this.#actor.exited;
  }
}

/** Starts one; it is killed at the end of the test. */
export async function startOfferActor(
  context: Owner,
  options: ActorOptions = {},
): Promise<OfferActor> {
  const child = spawn(process.execPath, [fixture('offer-actor')], {
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
  return new OfferActor(actor);
}

/** A source and a receiver. */
export function startTwo(context: Owner): Promise<[OfferActor, OfferActor]> {
  return Promise.all([startOfferActor(context), startOfferActor(context)]);
}

/** Rights and file of the mapping that holds an address of a process, as the kernel tells it. */
export function mappingAt(pid: number, address: number): { rights: string; path: string } {
  for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').trimEnd().split('\n')) {
    const [range = '', rights = '', , , , ...path] = line.split(/\s+/);
    const [start = 0, end = 0] = range.split('-').map((text) => Number.parseInt(text, 16));
    if (address >= start && address < end) return { rights, path: path.join(' ') };
  }
  return { rights: '', path: '' };
}

/** Mappings of a process's offered or claimed pages. */
export function pageMappings(pid: number): string[] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  return lines.filter((line) => line.includes('memfd:ukshm:pages'));
}

/** Bytes of them that are in its memory, by smaps. */
export function residentBytes(pid: number): number {
  let kib = 0;
  let inside = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) inside = line.includes('memfd:ukshm:pages');
    const [, size] = /^Rss:\s+(\d+) kB/.exec(line) ?? [];
    if (inside && size !== undefined) kib += Number(size);
  }
  return kib * 1024;
}

/** Descriptors of a process that are units of pages. */
export function pageDescriptors(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`).startsWith('/memfd:ukshm:pages');
    } catch {
      return false; // Closed meanwhile.
    }
  }).length;
}
