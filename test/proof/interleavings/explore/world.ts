// One run of a scenario: its parties, memories and sockets, what was done so far, and what went wrong.
import { EPOLLIN } from '../../../../src/abi/epoll.js';
import { EAGAIN, EPIPE } from '../../../../src/abi/errno.js';
import { current, nobody } from './current.js';
import { Memory, outboxWord } from './memory.js';
import { now } from './now.js';
import { call, type Op } from './op.js';
import { Party, socketReadiness } from './party.js';
import { run, type Steps } from './promise.js';
import { Races } from './races.js';

const EBADF = 9;
/** Bytes that fit into a socket. */
const SOCKET_BYTES = 256;
/** A run with more steps than this does not end. */
const STEPS_MAX = 20_000;

interface Socket {
  readonly owner: Party;
  peer: Socket | undefined;
  readonly queue: number[];
  open: boolean;
}

/** A step that was done. */
export interface Event {
  /** The party's index; a death's comes behind those of the parties. */
  readonly party: number;
  readonly op: Op;
}

/** Memories by their number, kept for the next run. */
const pool: Memory[] = [];

/** The run under way; before the first one, an empty one. */
export let world: World;

export class World {
  running = false;
  nowMs = 1;
  failure: Error | undefined = undefined;
  races: Races | undefined = undefined;
  readonly parties: Party[] = [];
  readonly mortals: Party[] = [];
  readonly trace: Event[] = [];
  readonly memories: Memory[] = [];
  readonly #deaths: Op[] = [];
  readonly #dying: boolean[] = [];
  readonly #fds: Map<number, Socket | Party> = new Map();
  #lastFd = 2;
  /** By party: those that share a socket with it, as bits. */
  readonly #linked: number[] = [];

  constructor() {
    for (const memory of pool) memory.reset();
    nobody.jobs.length = nobody.rejections.length = 0;
    current.party = nobody;
    world = this;
  }

  /** A memory of zeros that several parties see. */
  memory(name: string, sizeBytes: number, nameOf: (offset: number) => string = outboxWord): Memory {
    const id = this.memories.length;
    const known = pool[id];
    const fits = known?.name === name && known.buffer.byteLength === ((sizeBytes + 7) & ~7);
    const memory = fits ? known : new Memory(id, name, sizeBytes, nameOf);
    pool[id] = memory;
    this.memories.push(memory);
    return memory;
  }

  party(name: string, main: () => unknown): Party {
    const party = new Party(this, this.parties.length, name, main);
    this.parties.push(party);
    return party;
  }

  /** From now on a schedule may kill the party at each of its steps. */
  mayDie(party: Party): void {
    this.mortals.push(party);
  }

  /** Parties and deaths. */
  get actorCount(): number {
    return this.parties.length + this.mortals.length;
  }

  nameOf(actor: number): string {
    const party = this.parties[actor];
    return party?.name ?? `death of ${this.mortals[actor - this.parties.length]?.name}`;
  }

  start(): void {
    this.races = new Races(this.parties.length);
    for (const mortal of this.mortals) {
      this.#deaths.push(call('dies', this.peersOf(mortal), -1, undefined, mortal.index));
      this.#dying.push(true);
    }
    this.running = true;
    for (const party of this.parties) this.#guarded(party, () => party.advance());
  }

  /** What an actor does next; `undefined`: nothing any more. */
  pendingOf(actor: number): Op | undefined {
    const party = this.parties[actor];
    if (party !== undefined) return party.over ? undefined : party.pending;
    const mortal = actor - this.parties.length;
    return this.#dying[mortal] ? this.#deaths[mortal] : undefined;
  }

  isEnabled(actor: number): boolean {
    const op = this.pendingOf(actor);
    return op !== undefined && (op.isEnabled === undefined || op.isEnabled());
  }

  /** Who can go on now. Time passes only where nobody can. */
  enabled(): number[] {
    const actors: number[] = [];
    for (let i = 0; i < this.parties.length; i++) if (this.isEnabled(i)) actors.push(i);
    const waiting = actors.length > 0 ? [] : this.parties.filter((party) => !party.over);
    if (waiting.length > 0) {
      const next = Math.min(...waiting.map((party) => party.nextTimer));
      if (next > this.nowMs && Number.isFinite(next)) {
        this.nowMs = next;
        return this.enabled();
      }
      this.fail(
        new Error(`nobody can go on, and ${waiting.map(({ name }) => name).join(', ')} wait`),
      );
    }
    for (let i = this.parties.length; i < this.actorCount; i++)
      if (this.isEnabled(i)) actors.push(i);
    return actors;
  }

  /** Lets an actor do its step. */
  step(actor: number): void {
    const op = this.pendingOf(actor);
    if (op === undefined) throw new Error(`${this.nameOf(actor)} has nothing to do`);
    this.trace.push({ party: actor, op });
    if (this.trace.length > STEPS_MAX) this.fail(new Error(`no end after ${STEPS_MAX} steps`));
    const party = this.parties[actor];
    if (party !== undefined) {
      this.#guarded(party, () => party.advance());
      return;
    }
    this.#dying[actor - this.parties.length] = false;
    const dying = this.mortals[actor - this.parties.length] as Party;
    if (dying.over) return;
    dying.dead = true;
    this.hangUp(dying);
  }

  #guarded(party: Party, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
    }
    current.party = nobody;
    // Ended, with promises that failed and that nobody deals with.
    if (!party.finished) return;
    const unhandled = party.rejections.find((promise) => promise.unhandled !== undefined);
    if (unhandled !== undefined) this.fail(unhandled.unhandled?.reason as Error);
  }

  fail(error: Error): void {
    this.failure ??= error;
  }

  onAccess(memory: Memory, op: Op, atomic: boolean): void {
    const { index } = current.party;
    if (this.races === undefined || index < 0) return;
    const other = this.races.access(index, memory, op.from, op.to, op.writes, atomic);
    if (other < 0) return;
    const what = `${memory.name}.${memory.nameOf(op.from)}`;
    throw new Error(
      `race: this ${op.kind} of ${what} is not ordered with one of ${this.nameOf(other)}`,
    );
  }

  socketPair(a: Party, b: Party): [number, number] {
    const left: Socket = { owner: a, peer: undefined, queue: [], open: true };
    const right: Socket = { owner: b, peer: left, queue: [], open: true };
    left.peer = right;
    this.link(a, b);
    return [this.#newFd(left), this.#newFd(right)];
  }

  pidfd(of: Party): number {
    return this.#newFd(of);
  }

  #newFd(what: Socket | Party): number {
    const fd = ++this.#lastFd;
    this.#fds.set(fd, what);
    return fd;
  }

  readiness(fd: number): number {
    const what = this.#fds.get(fd);
    if (what === undefined) return 0;
    if (what instanceof Party) return what.over ? EPOLLIN : 0;
    const hungUp = what.peer?.open === false;
    const full = (what.peer?.queue.length ?? 0) >= SOCKET_BYTES;
    return socketReadiness(what.queue.length, hungUp, full);
  }

  /** Parties that this one's end concerns, as bits. */
  peersOf(party: Party): number {
    return (this.#linked[party.index] ?? 0) | (1 << party.index);
  }

  /** Each of the two may notice the other's end. */
  link(a: Party, b: Party): void {
    this.#linked[a.index] = this.peersOf(a) | (1 << b.index);
    this.#linked[b.index] = this.peersOf(b) | (1 << a.index);
  }

  /** The kernel closes what a party that ended had open. */
  hangUp(party: Party): void {
    for (const what of this.#fds.values()) {
      if (!(what instanceof Party) && what.owner === party) what.open = false;
    }
    const peers = this.peersOf(party);
    for (const { index } of this.parties) {
      if ((peers & (1 << index)) !== 0) this.races?.sent(party.index, index);
    }
  }

  *send(fd: number, bytes: Uint8Array): Steps<number> {
    const socket = this.#socket(fd);
    if (socket === undefined) return -EBADF;
    const peer = socket.peer as Socket;
    const op = yield* this.#call('send', 1 << peer.owner.index);
    if (!peer.open) return -EPIPE;
    const fits = Math.min(bytes.length, SOCKET_BYTES - peer.queue.length);
    op.value = `${fits} bytes to ${peer.owner.name}`;
    if (fits <= 0) return -EAGAIN;
    peer.queue.push(...bytes.subarray(0, fits));
    this.races?.sent(socket.owner.index, peer.owner.index);
    return fits;
  }

  *receive(fd: number, bytes: Uint8Array): Steps<number> {
    const socket = this.#socket(fd);
    if (socket === undefined) return -EBADF;
    const op = yield* this.#call('receive', 1 << socket.owner.index);
    this.races?.received(socket.owner.index);
    const taken = socket.queue.splice(0, bytes.length);
    op.value = `${taken.length} bytes`;
    bytes.set(taken);
    if (taken.length > 0) return taken.length;
    return socket.peer?.open ? -EAGAIN : 0;
  }

  *close(fd: number): Steps<void> {
    const socket = this.#socket(fd);
    if (socket === undefined) {
      this.#fds.delete(fd);
      return;
    }
    const peer = socket.peer as Socket;
    yield* this.#call('close', (1 << socket.owner.index) | (1 << peer.owner.index));
    socket.open = false;
    this.#fds.delete(fd);
    this.races?.sent(socket.owner.index, peer.owner.index);
  }

  *#call(kind: string, touches: number): Steps<Op> {
    const op = call(kind, touches);
    current.party.pending = op;
    yield;
    return op;
  }

  #socket(fd: number): Socket | undefined {
    const what = this.#fds.get(fd);
    return what instanceof Party ? undefined : what;
  }

  /** Judges a run that has come to its end. */
  finish(check: () => unknown): void {
    this.running = false;
    current.party = nobody;
    try {
      now(run(check()));
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

new World();
