// What the turned sources call, as `$`: each access of a shared memory is announced, then waits for its
// turn (`yield`), then is done. Private memory is accessed at once. Steps return what the expression
// in whose place they stand has for its value.
import type { Site } from '../../transform/emit.js';
import { current } from './current.js';
import { type Memory, memoryOf } from './memory.js';
import { now } from './now.js';
import { access, type Op } from './op.js';
import { run, Promise as SteppedPromise, type Steps } from './promise.js';
import { world } from './world.js';

export { AbortController, AbortSignal } from './abort.js';
export { now } from './now.js';
export {
  asyncGenerator,
  emit,
  emitAll,
  iteratorOf,
  newPromise,
  Promise,
  run,
  spawn,
  waitFor,
} from './promise.js';

/** A typed array. */
type View = Int32Array | Uint8Array | BigInt64Array;
type Numbers = Record<number, unknown> & { length: number };

/** Where plain loads may race, deliberately: in `glanceAt`, and from `beginRace` to `endRace`. */
const HELPERS = 'src/ring/words.ts:';
/** Its plain load is one that x86 orders: as good as an atomic one there, and an atomic one elsewhere. */
const ORDERED = 'loadAfterStore';
const sites: Site[] = [];
/** The helper that a site stands in; '': in none. */
const helpers: string[] = [];

/** @returns the number of the first. */
export function addSites(more: readonly Site[]): number {
  const first = sites.length;
  sites.push(...more);
  for (const { place, inside } of more) helpers.push(place.startsWith(HELPERS) ? inside : '');
  return first;
}

export function siteAt(site: number): Site {
  return sites[site] ?? { place: '', inside: '', text: '' };
}

/** Announces an access, waits for its turn and tells the watch for races. */
function* turn(kind: string, memory: Memory, from: number, to: number, site: number): Steps<Op> {
  const writes = kind.endsWith('store') || kind === 'copy in';
  const op = access(kind, memory.id, from, to, writes, site);
  if (!world.running) {
    if (writes) memory.noteWritten(from, to);
    return op;
  }
  current.party.pending = op;
  yield;
  if (writes) memory.noteWritten(from, to);
  const helper = helpers[site];
  if (helper === 'beginRace') current.party.races = true;
  if (helper === 'endRace') current.party.races = false;
  const atomic = kind.startsWith('atomic') || helper === ORDERED;
  const races = !atomic && !writes && (helper === 'glanceAt' || current.party.races);
  if (!races) world.onAccess(memory, op, atomic);
  return op;
}

function isClosed(memory: Memory): boolean {
  return current.party.index >= 0 && (memory.closedBy & (1 << current.party.index)) !== 0;
}

function* loadAs(kind: string, site: number, view: View, index: number): Steps<number> {
  const array = view as unknown as Int32Array;
  const memory = memoryOf(array);
  if (memory === undefined || !(index >= 0 && index < array.length)) {
    return kind === 'atomic load' ? Atomics.load(array, index) : (array[index] as number);
  }
  const from = array.byteOffset + index * array.BYTES_PER_ELEMENT;
  const op = yield* turn(kind, memory, from, from + array.BYTES_PER_ELEMENT, site);
  // A closed mapping shows zeros.
  const value = isClosed(memory) ? 0 : (array[index] as number);
  op.value = value;
  return value;
}

function* storeAs(
  kind: string,
  site: number,
  view: View,
  index: number,
  value: number,
): Steps<number> {
  const array = view as unknown as Int32Array;
  const memory = memoryOf(array);
  if (memory === undefined) {
    if (kind === 'atomic store') Atomics.store(array, index, value);
    else array[index] = value;
    return value;
  }
  const from = array.byteOffset + index * array.BYTES_PER_ELEMENT;
  const op = yield* turn(kind, memory, from, from + array.BYTES_PER_ELEMENT, site);
  op.value = value;
  if (!isClosed(memory)) array[index] = value;
  return value;
}

export function load(site: number, view: View, index: number): Steps<number> {
  return loadAs('load', site, view, index);
}

export function store(site: number, view: View, index: number, value: number): Steps<number> {
  return storeAs('store', site, view, index, value);
}

export function atomicLoad(site: number, view: View, index: number): Steps<number> {
  return loadAs('atomic load', site, view, index);
}

export function atomicStore(site: number, view: View, index: number, value: number): Steps<number> {
  return storeAs('atomic store', site, view, index, value);
}

/** Where a copy of so many bytes is cut: a copy is no single step. */
function half(lengthBytes: number): number {
  return lengthBytes < 8 ? lengthBytes : (lengthBytes >> 1) & ~3;
}

/** A private copy of a view, in two steps where it is shared. */
function* copyOut<T extends View>(site: number, view: T): Steps<T> {
  const memory = memoryOf(view);
  const bytes = new Uint8Array(view.byteLength);
  const source = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const cut = half(bytes.length);
  for (const [from, to] of [
    [0, cut],
    [cut, bytes.length],
  ] as const) {
    if (from === to) continue;
    const base = view.byteOffset;
    const op = memory && (yield* turn('copy out', memory, base + from, base + to, site));
    if (memory === undefined || !isClosed(memory)) bytes.set(source.subarray(from, to), from);
    if (op !== undefined) op.value = bytes.subarray(from, to);
  }
  const Type = view.constructor as unknown as {
    new (buffer: ArrayBuffer): T;
    from(b: ArrayBuffer): T;
  };
  return view instanceof Buffer ? Type.from(bytes.buffer) : new Type(bytes.buffer);
}

/** `target.set(source, offset)`. */
export function* copyIn(
  site: number,
  target: View,
  source: View | Numbers,
  offset: number = 0,
): Steps<void> {
  const shared = ArrayBuffer.isView(source) && memoryOf(source) !== undefined;
  const private_ = shared ? yield* copyOut(site, source as View) : source;
  const memory = memoryOf(target);
  const plain = target as unknown as {
    set(from: unknown, at: number): void;
    subarray(a: number, b: number): View;
  };
  if (memory === undefined) {
    plain.set(private_, offset);
    return;
  }
  const { length } = private_ as Numbers;
  const size = target.BYTES_PER_ELEMENT;
  if (offset + length > target.length) throw new RangeError('offset is out of bounds');
  const cut = Math.ceil(half(length * size) / size);
  for (const [from, to] of [
    [0, cut],
    [cut, length],
  ] as const) {
    if (from === to) continue;
    const base = target.byteOffset + offset * size;
    const op = yield* turn('copy in', memory, base + from * size, base + to * size, site);
    const part = ArrayBuffer.isView(private_)
      ? (private_ as Uint8Array).subarray(from, to)
      : Array.prototype.slice.call(private_, from, to);
    if (!isClosed(memory)) plain.set(part, offset + from);
    op.value = part;
  }
}

/** `view.slice(from, to)`. */
export function slice(site: number, view: View, from?: number, to?: number): Steps<View> {
  return copyOut(site, view.subarray(from, to));
}

/** `view.fill(value, from, to)`. */
export function* fill(
  site: number,
  view: View,
  value: number,
  from?: number,
  to?: number,
): Steps<View> {
  const part = view.subarray(from, to);
  yield* copyIn(site, part, new Array(part.length).fill(value));
  return view;
}

/** `new Type(view)`, or `Buffer.from(view)`. */
export function* copy(site: number, Type: unknown, view: View): Steps {
  const private_ = memoryOf(view) === undefined ? view : yield* copyOut(site, view);
  if (Type === Buffer) return Buffer.from(private_ as Uint8Array);
  return new (Type as new (from: unknown) => unknown)(private_);
}

/** A view of which something is done that is no step: it must be private. */
export function own<T extends View>(view: T, place: string): T {
  if (world.running && memoryOf(view) !== undefined) {
    throw new Error(`${place}: shared memory where the build has no steps for it`);
  }
  return view;
}

/** A property that may be a coloured accessor. */
export function* property(object: object, name: string): Steps {
  const values = object as Record<string, unknown>;
  const getter = values[`get$${name}`];
  return typeof getter === 'function' ? yield* run(getter.call(object)) : values[name];
}

/** `collection.method(callback)` with a coloured callback. */
export function* each(
  collection: Iterable<unknown> & { forEach(visit: (value: unknown, key: unknown) => void): void },
  method: string,
  callback: (value: unknown, key: unknown, collection: unknown) => unknown,
): Steps {
  const entries: [unknown, unknown][] = [];
  collection.forEach((value, key) => {
    entries.push([value, key]);
  });
  const results: unknown[] = [];
  for (const [value, key] of entries) {
    const result = yield* run(callback(value, key, collection));
    if (method === 'map') results.push(result);
    else if (method === 'filter' && result) results.push(value);
    else if (method === 'some' && result) return true;
    else if (method === 'every' && !result) return false;
    else if (method === 'find' && result) return value;
  }
  if (method === 'some') return false;
  if (method === 'every') return true;
  return method === 'map' || method === 'filter' ? results : undefined;
}

/** For unit tests: a callback that foreign code calls, run without a scheduler. */
export function sync(callback: (...args: unknown[]) => unknown): (...args: unknown[]) => unknown {
  return (...args) => {
    const result = now(callback(...args));
    return result instanceof SteppedPromise ? settled(result) : result;
  };
}

/** A promise of Node's for one of the build's. */
function settled(promise: SteppedPromise): globalThis.Promise<unknown> {
  return new globalThis.Promise((resolve, reject) => {
    promise.then(resolve, reject);
    const pump = (): void => {
      const { jobs } = current.party;
      for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) now(job());
      if (!promise.settled) setImmediate(pump);
    };
    pump();
  });
}
