// The subscribers of a topic: how they come, who is behind, and how they go.
import { basename } from 'node:path';
import type { Channel } from '../../channel/channel.js';
import { type Listener, listen } from '../../channel/meeting/listener.js';
import { MEETING_TIMEOUT_MS } from '../../channel/meeting/meeting.js';
import { unlessAborted } from '../../channel/waiters.js';
import { UkshmError } from '../../core/errors.js';
import { INLINE_BYTES_MAX, outboxLayout } from '../../memory/outbox-layout.js';
import { nextTurn } from '../../sys/clock.js';
import type { Credentials } from '../../sys/socket.js';
import { endAtOnce, type Note, readWish, refuse, TimeLimit } from '../joining.js';
import {
  checkWishes,
  type SlowPolicy,
  type TopicOptions,
  type TopicSettings,
  topicSettings,
  type Wishes,
} from './options.js';
import { Outlet } from './outlet.js';
import type { Parcel, Queue } from './queue.js';
import type { TopicChunk, TopicRegion } from './region.js';
import { Regions } from './regions.js';

/** Messages up to this are copied into each subscriber's ring (docs/decisions/0012). */
const INLINE_BYTES_USUAL = 2048;
/** Messages of one turn of the event loop after which sleepers are woken. */
const UNRUNG_MAX = 64;
/** How long the topic waits for subscribers to map a fresh region. */
const ENTER_MS = 200;
/** How long subscribers may take to read and release the last messages of a topic that closes. */
const LINGER_MS = 1000;

/** One subscriber, as its publisher sees it. */
export interface SubscriberStats {
  readonly peer: Credentials;
  readonly slow: SlowPolicy;
  readonly depth: number;
  /** Messages that it was sent and has not released, and that wait here for it. */
  readonly outstanding: number;
  readonly queued: number;
  /** Messages that it was sent, and that it lost. */
  readonly sent: number;
  readonly dropped: number;
}

/** What the roster asks of its topic. */
export interface RosterHost {
  /** The number of the next message. */
  readonly sequence: () => number;
  readonly kept: () => Queue | undefined;
  /** Those who wait to publish try again. */
  readonly serve: () => void;
}

export class Roster {
  readonly name: string;
  readonly inlineBytesMax: number;
  readonly #listener: Listener;
  readonly #settings: TopicSettings;
  #regions: Regions | undefined = undefined;
  #host: RosterHost | undefined = undefined;
  /** Replaced, never changed: whoever goes through it may disconnect some. */
  #outlets: readonly Outlet[] = [];
  #blocking: readonly Outlet[] = [];
  readonly #leaving: Set<Outlet> = new Set();
  readonly #joining: Set<Channel> = new Set();
  /** Who blocked the message that failed last; `undefined`: the memory was full. */
  #blocker: Outlet | undefined = undefined;
  readonly #sleepers: Outlet[] = [];
  /** Messages that went out since the first of them was found asleep. */
  #unrung = 0;
  #refed = true;
  #closed = false;

  private constructor(listener: Listener, settings: TopicSettings) {
    this.name = listener.name;
    this.#listener = listener;
    this.#settings = settings;
    const most = Math.min(settings.ringBytes / 8, INLINE_BYTES_MAX);
    this.inlineBytesMax = Math.min(most, INLINE_BYTES_USUAL);
  }

  static async open(name: string, options: TopicOptions): Promise<Roster> {
    const settings = topicSettings(options);
    const { ringBytes, maxSubscribers, arenaBytes, patienceMs } = settings;
    const { access, spinMicros } = options;
    const listener = await listen(name, {
      ...(access === undefined ? {} : { access }),
      ...(spinMicros === undefined ? {} : { spinMicros }),
      ringBytes,
      arenaBytes: 0,
      maxArenaBytes: 0,
      maxChannels: maxSubscribers,
      maxBytesPerUser: 2 * maxSubscribers * outboxLayout(ringBytes, 0).totalBytes,
    });
    const roster = new Roster(listener, settings);
    try {
      roster.#regions = await Regions.create(listener, arenaBytes, patienceMs, {
        collect: () => roster.#collect(),
        onFull: () => {
          roster.#blocker = undefined;
          roster.ringSleepers();
        },
        onStall: () => roster.#onStall(),
        expel: (current, retired) => roster.#expel(current, retired),
        onRenewed: (fresh, old) => roster.#onRenewed(fresh, old),
        onRetired: (old) => roster.#onRetired(old),
        onRoom: () => roster.#host?.serve(),
      });
    } catch (error) {
      await listener.close();
      throw error;
    }
    return roster;
  }

  get regions(): Regions {
    return this.#regions as Regions;
  }

  /** Those who are sent what is published. */
  get outlets(): readonly Outlet[] {
    return this.#outlets;
  }

  /** Begins to admit subscribers. */
  start(host: RosterHost): void {
    this.#host = host;
    void this.#admitAll();
  }

  /** Whether nobody blocks a message: in `chunk`, or as a record of `lengthBytes`. */
  canTake(lengthBytes: number, chunk: TopicChunk | undefined): boolean {
    for (const outlet of this.#blocking) {
      if (outlet.hasRoom(lengthBytes, chunk)) continue;
      this.#blocker = outlet;
      this.ringSleepers();
      return false;
    }
    return true;
  }

  /** Somebody waits for what failed last: has this side woken by those who can change that. */
  watch(): void {
    if (this.#blocker !== undefined) this.#blocker.watch();
    else for (const outlet of this.#outlets) outlet.watch();
  }

  /**
   * Wakes those who sleep and were sent something. A woken subscriber often takes the publisher's
   * processor at once: in the middle of many messages it would be woken for each.
   */
  ringSleepers(): void {
    this.#unrung = 0;
    for (const outlet of this.#sleepers.splice(0)) outlet.ring();
  }

  /** A message went out to all: sleepers shall not wait too long for a publisher that goes on. */
  onPublished(): void {
    if (this.#sleepers.length > 0 && ++this.#unrung >= UNRUNG_MAX) this.ringSleepers();
  }

  #onSleeper(outlet: Outlet): void {
    this.#sleepers.push(outlet);
    if (this.#sleepers.length === 1) nextTurn(this.#ringLater);
  }

  readonly #ringLater = (): void => this.ringSleepers();

  /** A subscriber has no room for a message. */
  late(outlet: Outlet, parcel: Parcel): void {
    const { slow } = outlet.wishes;
    if (slow === 'disconnect') this.#disconnect(outlet);
    else if (slow === 'drop-newest') outlet.dropped++;
    else outlet.late(parcel);
  }

  stats(): SubscriberStats[] {
    return this.#outlets.map((outlet) => {
      outlet.refresh();
      const { outstanding, queued, sent, dropped } = outlet;
      return { peer: outlet.channel.peer, ...outlet.wishes, outstanding, queued, sent, dropped };
    });
  }

  ref(): void {
    this.#refed = true;
    this.#listener.ref();
    for (const { channel } of this.#all()) channel.ref();
  }

  unref(): void {
    this.#refed = false;
    this.#listener.unref();
    for (const { channel } of this.#all()) channel.unref();
  }

  /** Admits nobody more and lets all of them go. */
  async close(signal: AbortSignal | undefined): Promise<void> {
    this.#closed = true;
    const limit = new TimeLimit(LINGER_MS, signal);
    const cut = (): void => {
      for (const outlet of this.#all()) outlet.cut();
    };
    limit.signal.addEventListener('abort', cut, { once: true });
    if (limit.signal.aborted) cut();
    const note = this.#note();
    await Promise.all([
      this.#listener.close(),
      ...[...this.#joining].map(endAtOnce),
      ...this.#outlets.map((outlet) => outlet.finish(note)),
      ...[...this.#leaving].map((outlet) => outlet.channel.closed),
    ]);
    limit.end();
    this.regions.close();
  }

  #all(): Outlet[] {
    return [...this.#outlets, ...this.#leaving];
  }

  async #admitAll(): Promise<void> {
    for await (const channel of this.#listener) void this.#admit(channel);
  }

  async #admit(channel: Channel): Promise<void> {
    this.#joining.add(channel);
    try {
      const wishes = await this.#wishesOf(channel);
      const outlet = new Outlet(channel, wishes, {
        onReleased: () => this.#host?.serve(),
        onSleeper: (sleeper) => this.#onSleeper(sleeper),
      });
      await this.#lodge(outlet);
      if (this.#closed) await endAtOnce(channel);
      else this.#take(outlet);
    } catch (error) {
      await refuse(channel, error);
    } finally {
      this.#joining.delete(channel);
    }
  }

  /** What a subscriber asks for. @throws what it is told instead. */
  async #wishesOf(channel: Channel): Promise<Wishes> {
    const request = await readWish(channel);
    const { topic } = request;
    // Where folders are mounted elsewhere, the last part of a path is the same.
    if (typeof topic !== 'string' || basename(topic) !== basename(this.name)) {
      throw new UkshmError(
        'ERR_UKSHM_NOT_OFFERED',
        `no such topic here; this is '${this.name}': subscribe to it by that name`,
      );
    }
    const wishes = checkWishes(request);
    if (wishes.slow !== 'block' || this.#settings.mayBlock) return wishes;
    throw new UkshmError(
      'ERR_UKSHM_MAY_NOT_BLOCK',
      "a subscriber with slow: 'block' could stop this topic for all: its publisher must allow " +
        "that in openTopic(name, { mayBlock: true }), or choose another 'slow'",
    );
  }

  /** Waits until the subscriber has mapped the region that is in use then. */
  async #lodge(outlet: Outlet): Promise<void> {
    for (let region = this.regions.current; ; region = this.regions.current) {
      const limit = new TimeLimit(MEETING_TIMEOUT_MS);
      try {
        await unlessAborted(outlet.enter(region), limit.signal);
      } catch (error) {
        // A region that is in use no more is there no more.
        if (region === this.regions.current) throw error;
      } finally {
        limit.end();
      }
      if (region === this.regions.current) return;
      outlet.forget(region);
    }
  }

  /** From here on it is a subscriber: what is published next is the first that it is sent. */
  #take(outlet: Outlet): void {
    const { channel, wishes } = outlet;
    const kept = (this.#host?.kept()?.parcels ?? []).slice(-wishes.depth);
    outlet.answer({ sequence: this.#host?.sequence() ?? 0, kept: kept.length });
    for (const parcel of kept) outlet.offer(parcel);
    this.#outlets = [...this.#outlets, outlet];
    this.#onChange();
    if (!this.#refed) channel.unref();
    void channel.closed.then(() => this.#onGone(outlet));
  }

  #onChange(): void {
    this.#blocking = this.#outlets.filter(({ wishes }) => wishes.slow === 'block');
  }

  #remove(outlet: Outlet): void {
    this.#outlets = this.#outlets.filter((one) => one !== outlet);
    this.#leaving.delete(outlet);
    this.#onChange();
  }

  #onGone(outlet: Outlet): void {
    outlet.end();
    this.#remove(outlet);
    this.#host?.serve();
  }

  /** The last message: the number of the next, were there one, and why there is none. */
  #note(code?: 'ERR_UKSHM_TOO_SLOW'): Note {
    const sequence = this.#host?.sequence() ?? 0;
    return code === undefined ? { sequence } : { code, sequence };
  }

  #disconnect(outlet: Outlet): void {
    if (outlet.gone) return;
    this.#remove(outlet);
    this.#leaving.add(outlet);
    void outlet.leave(this.#note('ERR_UKSHM_TOO_SLOW'));
  }

  #collect(): boolean {
    let any = false;
    for (const outlet of this.#outlets) if (outlet.refresh()) any = true;
    for (const outlet of this.#leaving) if (outlet.refresh()) any = true;
    return any;
  }

  #onStall(): void {
    for (const outlet of this.#all()) outlet.releasedAtStall = outlet.released;
  }

  #expel(current: TopicRegion, retired: ReadonlySet<TopicRegion>): boolean {
    const holders = this.#all().filter((outlet) => outlet.heldOf(current) > 0);
    const old = this.#all().filter((outlet) => {
      return [...retired].some((region) => outlet.heldOf(region) > 0);
    });
    if (holders.length === 0) return false;
    let blamed = holders.filter(({ released, releasedAtStall }) => released === releasedAtStall);
    if (blamed.length === 0 && old.length === 0) {
      const worst = holders.reduce((a, b) => (a.heldOf(current) >= b.heldOf(current) ? a : b));
      blamed = [worst];
    }
    for (const outlet of new Set([...blamed, ...old])) {
      this.#disconnect(outlet);
      outlet.cut();
    }
    return true;
  }

  /** Those who are stopped are not waited for: what comes is late for them. */
  async #onRenewed(fresh: TopicRegion, old: TopicRegion): Promise<void> {
    this.#host?.kept()?.move(old, fresh);
    const entering = this.#outlets.map(async (outlet) => {
      try {
        await outlet.enter(fresh);
        outlet.resume();
      } catch {
        this.#disconnect(outlet);
      }
    });
    const limit = new TimeLimit(ENTER_MS);
    await unlessAborted(Promise.all(entering), limit.signal).catch(() => {});
    limit.end();
  }

  #onRetired(old: TopicRegion): void {
    for (const outlet of this.#outlets) outlet.forget(old);
  }
}
