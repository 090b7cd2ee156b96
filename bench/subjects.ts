// Who is measured, at what, and by which programs. Each pair of programs keeps the protocol of
// bench/README.md, so the harness treats all of them alike.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
/** The package: this file runs from dist/bench. */
export const root: string = join(here, '..', '..');
const peers = join(root, 'bench', 'peers');
const built = join(peers, '.build');

/** What a row measures. A subject may answer with a job of its own. */
export type RowJob =
  | 'round-trip-spinning'
  | 'round-trip-asleep'
  | 'one-way-batched'
  | 'one-way-unbatched'
  | 'hand-over'
  | 'idle'
  | 'connect'
  | RequestJob
  | TopicJob
  | ForkJob
  | GiveJob;

/** The serialization, and how many messages are under way. */
export type ForkJob = `fork-${'json' | 'advanced'}-${1 | 16}`;

/** Bytes handed over and read; one page with all that belongs to it; many of those. */
export type GiveJob = 'give' | 'give-page' | 'give-rate';

/** How many read. */
export type TopicJob = `topic-${1 | 4 | 16}`;

/** How whoever waits does, and how many requests are under way. */
export type RequestJob = `requests-${'asleep' | 'spinning'}-${1 | 16 | 256}`;

export interface Subject {
  readonly name: string;
  /** The peer in bench/peers that must be built. */
  readonly peer?: string;
  /** Jobs that it does, and how its own program calls them. */
  readonly jobs: Partial<Record<RowJob, string>>;
  /** Program and first arguments of one side. */
  command(size: number, role?: 'listen' | 'connect'): string[];
  /** One program starts the other itself, so that `connect` alone is run. */
  readonly single?: boolean;
  /** Sizes that it cannot send, with the reason. */
  refuses?(size: number): string | undefined;
  /** A virtual machine that compiles late needs a longer warm-up than a program in C. */
  readonly warmMsMin?: number;
  /** Whoever waits in a one-way row looks again and again, at least for a while. */
  readonly spins: boolean;
  /** Left out of the rows of sizes that are measured only for the plot. */
  readonly only64?: boolean;
}

/** Java and JavaScript are compiled while they run, on threads that want a CPU too. */
const VM_WARM_MS = 700;
const LARGE_BYTES = 8193;
const MIB = 1 << 20;
const ONE_WAY = { 'one-way-batched': 'one-way-batched', 'one-way-unbatched': 'one-way-unbatched' };
const SPINNING = { 'round-trip-spinning': 'round-trip-spinning' };
const ASLEEP = { 'round-trip-asleep': 'round-trip-asleep' };
const UNBATCHED = { 'one-way-unbatched': 'one-way-unbatched' };

const ICEORYX2 = join(built, 'iceoryx2', 'release', 'ukshm-bench-iceoryx2');
const node = (script: string): string[] => [process.execPath, join(here, 'subjects', script)];
const c = (program: string): string[] => [join(built, 'c', program)];

const ukshm = (variant: string, jobs: Subject['jobs'], only64 = false): Subject => ({
  name: variant === '' ? 'ukshm' : `ukshm, ${variant}`,
  jobs,
  command: () => node('ukshm.js'),
  warmMsMin: VM_WARM_MS,
  spins: true,
  only64,
});

const largeViews = (size: number): string | undefined =>
  size < LARGE_BYTES ? undefined : 'large messages are always written through a view';

export const subjects: readonly Subject[] = [
  ukshm('', {
    ...SPINNING,
    ...ASLEEP,
    ...ONE_WAY,
    'hand-over': 'hand-over',
    idle: 'idle',
    connect: 'connect',
  }),
  { ...ukshm('views', { 'one-way-batched': 'one-way-views' }), refuses: largeViews },
  ukshm('for await', { 'one-way-batched': 'one-way-for-await' }, true),
  ukshm('readable + drain', { 'one-way-batched': 'one-way-readable' }, true),
  {
    name: 'C, one word',
    peer: 'c',
    jobs: SPINNING,
    command: () => c('word'),
    spins: true,
    only64: true,
  },
  {
    name: 'C, shared memory',
    peer: 'c',
    jobs: { ...SPINNING, ...ONE_WAY },
    command: () => c('ring'),
    spins: true,
  },
  {
    name: 'C, Unix socket',
    peer: 'c',
    jobs: { ...ASLEEP, ...ONE_WAY },
    command: () => c('socket'),
    spins: false,
  },
  {
    name: 'iceoryx2',
    peer: 'iceoryx2',
    jobs: { ...SPINNING, ...UNBATCHED },
    command: () => [ICEORYX2],
    spins: true,
  },
  {
    name: 'Aeron IPC',
    peer: 'aeron',
    jobs: { ...SPINNING, ...UNBATCHED },
    command: () => [
      'java',
      ...['-XX:+UseSerialGC', '--add-opens', 'java.base/jdk.internal.misc=ALL-UNNAMED'],
      '-Dagrona.disable.bounds.checks=true',
      ...['-cp', `${join(built, 'aeron', 'classes')}:${join(built, 'aeron', 'lib')}/*`, 'Peer'],
    ],
    refuses: (size) => (size > 8 * MIB ? 'its largest message is an eighth of a term' : undefined),
    warmMsMin: VM_WARM_MS,
    spins: true,
  },
  {
    name: 'Node net',
    jobs: { ...ASLEEP, ...ONE_WAY, idle: 'idle', connect: 'connect' },
    command: () => node('net.js'),
    warmMsMin: VM_WARM_MS,
    spins: false,
  },
  {
    name: 'child.send',
    jobs: { ...ASLEEP, ...UNBATCHED },
    command: () => node('child-send.js'),
    warmMsMin: VM_WARM_MS,
    spins: false,
    single: true,
  },
  {
    name: 'postMessage',
    jobs: { ...ASLEEP, ...UNBATCHED },
    command: () => node('post-message.js'),
    warmMsMin: VM_WARM_MS,
    spins: false,
    single: true,
  },
  {
    name: 'zeromq',
    peer: 'zeromq',
    jobs: { ...ASLEEP, ...UNBATCHED },
    command: () => [process.execPath, join(peers, 'zeromq', 'zeromq.mjs'), join(built, 'zeromq')],
    warmMsMin: VM_WARM_MS,
    spins: false,
  },
];

const REQUESTS_ASLEEP = {
  'requests-asleep-1': 'requests-asleep-1',
  'requests-asleep-16': 'requests-asleep-16',
  'requests-asleep-256': 'requests-asleep-256',
};
const REQUESTS_SPINNING = {
  'requests-spinning-1': 'requests-spinning-1',
  'requests-spinning-16': 'requests-spinning-16',
  'requests-spinning-256': 'requests-spinning-256',
};
const peer = (name: string, script: string): string[] => [
  process.execPath,
  join(peers, name, script),
  join(built, name),
];
const VM = { warmMsMin: VM_WARM_MS, spins: false };

/** Who answers requests, and how. */
export const requestSubjects: readonly Subject[] = [
  {
    ...VM,
    name: 'ukshm',
    jobs: { ...REQUESTS_ASLEEP, ...REQUESTS_SPINNING },
    command: () => node('requests.js'),
  },
  {
    name: 'iceoryx2',
    peer: 'iceoryx2',
    jobs: REQUESTS_SPINNING,
    command: () => [ICEORYX2],
    spins: true,
  },
  {
    ...VM,
    name: 'zeromq',
    peer: 'zeromq',
    jobs: REQUESTS_ASLEEP,
    command: () => peer('zeromq', 'requests.mjs'),
  },
  {
    ...VM,
    name: 'HTTP, undici',
    peer: 'http',
    jobs: REQUESTS_ASLEEP,
    command: () => peer('http', 'requests.mjs'),
  },
  {
    ...VM,
    name: 'child.send',
    jobs: REQUESTS_ASLEEP,
    command: () => node('child-requests.js'),
    single: true,
  },
  {
    ...VM,
    name: 'nats',
    peer: 'nats',
    jobs: REQUESTS_ASLEEP,
    command: () => peer('nats', 'requests.mjs'),
  },
];

const TOPICS = { 'topic-1': 'topic-1', 'topic-4': 'topic-4', 'topic-16': 'topic-16' };

/** Who publishes to many. */
export const topicSubjects: readonly Subject[] = [
  { ...VM, name: 'ukshm topic', jobs: TOPICS, command: () => node('topics.js'), single: true },
  {
    ...VM,
    name: 'zeromq pub/sub',
    peer: 'zeromq',
    jobs: TOPICS,
    command: () => peer('zeromq', 'topics.mjs'),
    single: true,
  },
  {
    name: 'iceoryx2 topic',
    peer: 'iceoryx2',
    jobs: TOPICS,
    command: () => [ICEORYX2],
    single: true,
    spins: true,
  },
  {
    ...VM,
    name: 'BroadcastChannel',
    jobs: TOPICS,
    command: () => node('broadcast-channel.js'),
    single: true,
  },
];

const forks = (name: string, way: string): Subject => ({
  ...VM,
  name,
  jobs: {
    'fork-advanced-1': `${way}-advanced-1`,
    'fork-advanced-16': `${way}-advanced-16`,
    'fork-json-1': `${way}-json-1`,
  },
  command: () => node('forks.js'),
  single: true,
});

/** Whose `fork` made the child. */
export const forkSubjects: readonly Subject[] = [
  forks('ukshm fork', 'ukshm'),
  forks('Node fork', 'node'),
];

const python = (way: string): string[] => [
  'python3',
  join(peers, 'python', 'receive.py'),
  join(built, 'python'),
  way,
];
/** Node sends, Python receives. */
const toPython = (name: string, sender: string[], way: string): Subject => ({
  ...VM,
  name,
  peer: 'python',
  jobs: UNBATCHED,
  command: (_size, role) => (role === 'listen' ? python(way) : sender),
});

/** What carries messages from Node to Python. */
export const pythonSubjects: readonly Subject[] = [
  toPython('ukshm to Python', node('ukshm.js'), 'ukshm'),
  toPython('net to Python', node('net.js'), 'socket'),
  toPython('zeromq to Python', peer('zeromq', 'zeromq.mjs'), 'zeromq'),
  {
    ...toPython('multiprocessing, Python to Python', [], ''),
    command: () => python('pipe'),
    single: true,
  },
];

const PAGE_JOBS = { 'give-page': 'give-page', 'give-rate': 'give-rate' } as const;
const giving = (name: string, jobs: Subject['jobs'], spins = false): Subject => ({
  ...VM,
  name,
  jobs,
  spins,
  command: () => node('giving.js'),
});
const givingInC = (name: string, jobs: Subject['jobs']): Subject => ({
  name,
  peer: 'c',
  jobs,
  command: () => c('give'),
  spins: false,
});

/** Who hands bytes over, and how. */
export const giveSubjects: readonly Subject[] = [
  giving('ukshm offer', { give: 'give-offer', ...PAGE_JOBS }),
  giving('ukshm channel', { give: 'give-channel' }, true),
  giving('ukshm channel, copied', { give: 'give-channel-copy' }, true),
  giving('Node net', { give: 'give-net' }),
  givingInC('C, Unix socket', { give: 'give-socket' }),
  givingInC('C, vmsplice', { give: 'give-vmsplice' }),
  givingInC('C, memfd passed', { give: 'give-memfd', ...PAGE_JOBS }),
];

/** The C program that runs between all others and tells how the machine is at the moment. */
export const controlCommand: string[] = c('word');

interface PeerBuilder {
  buildPeer(name: string): string | undefined;
}

/** Builds what `wanted` needs. Returns why a peer is missing, by its name. */
export async function buildPeers(wanted: readonly Subject[]): Promise<Map<string, string>> {
  const script = join(peers, 'build.mjs');
  if (!existsSync(script)) throw new Error(`there is no ${script}: run this in a clone`);
  const { buildPeer } = (await import(pathToFileURL(script).href)) as PeerBuilder;
  const missing = new Map<string, string>();
  const names = new Set(['c', ...wanted.flatMap((s) => (s.peer === undefined ? [] : [s.peer]))]);
  for (const name of names) {
    const reason = buildPeer(name);
    if (reason !== undefined) missing.set(name, reason);
  }
  return missing;
}
