// Planted bugs: for each property a broken copy of the product that the explorer must catch. Each is a
// text edit of a source, made when the build is; where the text is not there any more, that is an error.
import type { Edit } from '../transform/sources.js';
import type { ModuleName } from './plan.js';

export interface Bug {
  readonly name: string;
  readonly edit: Edit;
  /** The scenario that must fail: its module, and a part of its name. */
  readonly scenarios: ModuleName;
  readonly scenario: string;
  /** How it fails. */
  readonly failure: RegExp;
}

const PRODUCER = 'src/ring/producer.ts';
const CONSUMER = 'src/ring/consumer.ts';
const WAITS = /nobody can go on/;

export const BUGS: readonly Bug[] = [
  {
    name: 'tail before payload',
    edit: {
      file: PRODUCER,
      from: '    if (lengthBytes <= LONG_COPY_BYTES_MAX) this.#copySmall',
      to:
        '    Atomics.store(this.#words, TAIL_INDEX, (this.#tail + 8 + ((lengthBytes + 7) & ~7)) | 0);\n' +
        '    if (lengthBytes <= LONG_COPY_BYTES_MAX) this.#copySmall',
    },
    scenarios: 'ring',
    scenario: 'two slots',
    failure: /race|whole|order|nobody can go on|does not end/,
  },
  {
    name: 'plain store of a cursor',
    edit: {
      file: PRODUCER,
      from: 'Atomics.store(this.#words, TAIL_INDEX, this.#tail);\n    return this.mustRing();',
      to: 'this.#words[TAIL_INDEX] = this.#tail;\n    return this.mustRing();',
    },
    scenarios: 'ring',
    scenario: 'two slots',
    failure: /race/,
  },
  {
    name: 'stale cached head',
    edit: {
      file: PRODUCER,
      from: '      this.#readHead();\n      const free = ',
      to: '      const free = ',
    },
    scenarios: 'ring',
    scenario: 'two slots',
    failure: WAITS,
  },
  {
    name: 'head before the record is read',
    edit: {
      file: CONSUMER,
      from: '      if (type === TYPE_PADDING) continue;',
      to: '      if (type === TYPE_PADDING) continue;\n      this.#ringOwed = this.publishHead();',
    },
    scenarios: 'ring',
    scenario: 'two slots',
    failure: /race|whole|order/,
  },
  {
    name: 'wrong wrap',
    edit: { file: PRODUCER, from: 'size > rest ? rest : 0', to: 'size > rest + 8 ? rest : 0' },
    scenarios: 'ring',
    scenario: 'padding',
    failure: /does not end within|out of bounds|order|whole/,
  },
  {
    name: 'full is not seen across 2^32',
    edit: {
      file: PRODUCER,
      from: 'return (this.#tail - this.#headSeen) >>> 0;\n  }\n\n  /** Where the next',
      to: 'return this.#tail - this.#headSeen;\n  }\n\n  /** Where the next',
    },
    scenarios: 'ring',
    scenario: '2^31',
    failure: /race|whole|order|is not between/,
  },
  {
    name: 'second ring',
    edit: {
      file: PRODUCER,
      from: '    this.#rungFor = asleep;\n    return true;\n  }\n\n  /** Whether the announcement stands. */',
      to: '    return true;\n  }\n\n  /** Whether the announcement stands. */',
    },
    scenarios: 'ring',
    scenario: 'two slots',
    failure: /at most one ring/,
  },
  {
    name: 'the sleep word is read before the tail is stored',
    edit: {
      file: PRODUCER,
      from: 'Atomics.store(this.#words, TAIL_INDEX, this.#tail);\n    return this.mustRing();',
      to:
        'const ring = this.mustRing();\n' +
        '    Atomics.store(this.#words, TAIL_INDEX, this.#tail);\n    return ring;',
    },
    scenarios: 'channel',
    scenario: 'echo',
    failure: WAITS,
  },
  {
    name: 'no re-check before sleep',
    edit: {
      file: 'src/channel/records.ts',
      from: 'this.#receiver.announceSleep();\n    this.#serve();',
      to: 'this.#receiver.announceSleep();',
    },
    scenarios: 'channel',
    scenario: 'echo',
    failure: WAITS,
  },
  {
    name: 'no re-check before sleep for space',
    edit: {
      file: 'src/channel/space.ts',
      from: 'this.#sender.collect();\n    this.#waiters.serve();\n    if',
      to: 'if',
    },
    scenarios: 'channel',
    scenario: 'full and padded',
    failure: WAITS,
  },
  {
    name: 'no last look at the end',
    edit: {
      file: 'src/channel/records.ts',
      from: '      return this.#look(fresh);\n    } catch',
      to: '      return false;\n    } catch',
    },
    scenarios: 'channel',
    scenario: 'three messages',
    failure: /read \d of \d/,
  },
  {
    name: 'a chunk is released before it is read',
    edit: {
      file: 'src/channel/message.ts',
      from: '    return new Uint8Array(this.bytes);',
      to: '    const { bytes } = this;\n    this.#owner.release(this);\n    return new Uint8Array(bytes);',
    },
    scenarios: 'channel',
    scenario: 'chunks in turn',
    failure: /race|not lent|that it was lent|Expected values/,
  },
  {
    name: 'lost release',
    edit: {
      file: 'src/channel/receiver.ts',
      from: '    this.#releases.push(lease, generation);\n    this.#releases.publish();\n',
      to: '    this.#releases.push(lease, generation);\n',
    },
    scenarios: 'channel',
    scenario: 'chunks in turn',
    failure: WAITS,
  },
  {
    name: 'the release tail before its slot',
    edit: {
      file: 'src/ring/releases.ts',
      from: '    this.#words[index] = lease;\n    this.#words[index + 1] = generation;\n    this.#tail = (this.#tail + 1) | 0;',
      to:
        '    this.#tail = (this.#tail + 1) | 0;\n' +
        '    Atomics.store(this.#words, RELEASE_TAIL_INDEX, this.#tail);\n' +
        '    this.#words[index] = lease;\n    this.#words[index + 1] = generation;',
    },
    scenarios: 'channel',
    scenario: 'chunks in turn',
    failure: /race|not lent/,
  },
  {
    name: 'a death is not noticed',
    edit: {
      file: 'src/channel/life.ts',
      from: '    const error = peerGone(this.#parts.peer, this.#parts.name);\n    const reason',
      to: '    if (!this.#whole.receiver.peerClosing()) return;\n    const error = peerGone(this.#parts.peer, this.#parts.name);\n    const reason',
    },
    scenarios: 'channel',
    scenario: 'the sender dies',
    failure: WAITS,
  },
  {
    name: 'what the writer has overtaken passes for whole',
    edit: {
      file: 'src/ring/latest.ts',
      from: 'const NEWER_MAX: number = LATEST_BUFFERS - 2;',
      to: 'const NEWER_MAX: number = LATEST_BUFFERS - 1;',
    },
    scenarios: 'latest',
    scenario: 'read often',
    failure: /whole|older/,
  },
  {
    name: 'the version before its value',
    edit: {
      file: 'src/patterns/latest/table-writer.ts',
      from: '    if (value !== undefined) this.#bytes.set(value, at + VALUE_OFFSET);\n    this.#latest.commit(slot, slotsUsed);',
      to: '    this.#latest.commit(slot, slotsUsed);\n    if (value !== undefined) this.#bytes.set(value, at + VALUE_OFFSET);',
    },
    scenarios: 'latest',
    scenario: 'into a target',
    failure: /whole/,
  },
  {
    name: 'the number of a request that was given up is used again before its reply came',
    edit: {
      file: 'src/channel/requests.ts',
      from: '    slot.settle = slot.resolve = slot.reject = undefined;\n    this.#waiting--;\n',
      to: '    this.#waiting--;\n    this.#freeSlot(slot);\n',
    },
    scenarios: 'request',
    scenario: 'given up',
    failure: /which was not asked|asked once|own reply/,
  },
  {
    name: 'requests are not told that the server has closed',
    edit: {
      file: 'src/channel/requests.ts',
      from: '      if (this.#waiting > 0) this.fail(ended());\n',
      to: '',
    },
    scenarios: 'request',
    scenario: 'the server closes',
    failure: WAITS,
  },
  {
    name: 'the middle does not wait until the target has mapped the memory',
    edit: {
      file: 'src/channel/forward.ts',
      from: '    await unlessAborted(exported.ready, signal);\n',
      to: '',
    },
    scenarios: 'forward',
    scenario: 'small and large',
    failure: /is not imported/,
  },
  {
    name: 'the middle gives a forwarded message back at once',
    edit: {
      file: 'src/channel/forward.ts',
      from: '  space.expectReleases();\n',
      to: '  space.expectReleases();\n  comeBack();\n',
    },
    scenarios: 'forward',
    scenario: 'chunks in turn',
    failure: /race|whole|not lent|that it was lent/,
  },
  {
    name: 'the target is not asked for what it has released',
    edit: { file: 'src/channel/forward.ts', from: '  space.expectReleases();\n', to: '' },
    scenarios: 'forward',
    scenario: 'chunks in turn',
    failure: WAITS,
  },
  {
    // Was in the product until the explorer found it.
    name: 'a wait for space that begins when the channel has just ended',
    edit: {
      file: 'src/channel/space.ts',
      from: '      this.end(this.#reason);\n      return;',
      to: '      return;',
    },
    scenarios: 'topic',
    scenario: 'one dies',
    failure: WAITS,
  },
  {
    name: 'memory of a topic is free while one subscriber still reads it',
    edit: {
      file: 'src/patterns/topic/outlet.ts',
      from: '    chunk.hold();\n    berth.bytes',
      to: '    berth.bytes',
    },
    scenarios: 'topic',
    scenario: 'two subscribers',
    failure: /race|whole|assert/i,
  },
];
