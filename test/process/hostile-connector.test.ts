// Goal: whatever a connector does, in the meeting or in its outbox afterwards, ends its own channel
// with ERR_UKSHM_PEER_MISBEHAVED and no other; the victim neither dies nor works itself to death.
import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
} from '../../src/abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../src/abi/memfd.js';
import { addressOfName } from '../../src/channel/address.js';
import { decodeWelcome, encodeAck, WELCOME_BYTES } from '../../src/channel/wire.js';
import { type Channel, connect } from '../../src/index.js';
import {
  DESCRIPTOR_BYTES,
  HEAD_INDEX,
  outboxLayout,
  RELEASE_SLOTS,
  RELEASE_TAIL_INDEX,
  TAIL_INDEX,
  TYPE_DESCRIPTOR,
  TYPE_PADDING,
} from '../../src/memory/outbox-layout.js';
import {
  addSeals,
  allocate,
  closeDescriptor,
  memfdCreate,
  truncate,
} from '../../src/sys/memory.js';
import { receive, send } from '../../src/sys/socket.js';
import { type Actor, cleanup, codeOf, endAll, startActor, uniqueName, until } from './actors.js';
import { isPattern, pattern } from './pattern.js';
import {
  ALL_SEALS,
  hungUp,
  plainHello,
  type RawConnector,
  rawAccept,
  rawConnect,
  rawListen,
  rawSocket,
  sendWith,
  welcomeOf,
} from './raw-peer.js';

const OPTIONS = { timeout: 30_000 };
const RING_BYTES = 16384;
const ARENA_BYTES = 131072;
const HANDSHAKE_MS = 500;

let victim: Actor;
let name: string;
/** The same victim's listener with little patience. */
let impatient: string;
let honest: Channel;
let accepted = 0;

/** The honest channel on the same listener still works. */
async function expectHonest(): Promise<void> {
  for (const [id, lengthBytes] of [100, 30_000].entries()) {
    await honest.send(pattern(lengthBytes, id), { id });
    for await (const message of honest) {
      assert.ok(message.id === id && isPattern(message.bytes, id));
      message.release();
      break;
    }
  }
}

/** A channel of the victim with a connector without manners; the victim calls it by the answer. */
async function hostileChannel(context: TestContext): Promise<{ raw: RawConnector; as: string }> {
  const as = `hostile${++accepted}`;
  const accepting = victim.call('accept', name, as);
  const raw = await rawConnect(name);
  context.after(() => raw.close());
  await accepting;
  return { raw, as };
}

async function expectMisbehaved(as: string, words: RegExp): Promise<void> {
  const { reason, code, message } = await victim.call('closed', as);
  assert.deepEqual(
    { reason, code },
    { reason: 'peer-misbehaved', code: 'ERR_UKSHM_PEER_MISBEHAVED' },
  );
  assert.match(message ?? '', words);
}

describe('a hostile connector', { concurrency: false }, () => {
  const suite = cleanup();
  before(async () => {
    name = uniqueName('hostile');
    victim = await startActor(suite, { watchTurns: true });
    impatient = uniqueName('impatient');
    const sizes = { ringBytes: RING_BYTES, arenaBytes: ARENA_BYTES, maxChannels: 8 };
    await victim.call('listen', name, sizes);
    await victim.call('listen', impatient, { ...sizes, handshakeTimeoutMs: HANDSHAKE_MS });
    const accepting = victim.call('accept', name, 'honest');
    honest = await connect(name);
    await accepting;
    await victim.call('echo', 'honest');
    suite.after(() => endAll(honest));
  });
  after(() => suite.end());

  const tails: readonly (readonly [string, (raw: RawConnector) => void, RegExp])[] = [
    ['a tail beyond the ring', (raw) => raw.store(TAIL_INDEX, RING_BYTES + 8), /tail/],
    ['a tail far away', (raw) => raw.store(TAIL_INDEX, 0x80000000), /tail/],
    ['a tail behind itself', (raw) => raw.store(TAIL_INDEX, -8), /tail/],
    ['an unaligned tail', (raw) => raw.store(TAIL_INDEX, 12), /tail/],
    [
      'a record that ends behind the tail',
      (raw) => {
        raw.record(0, 100, 1);
        raw.store(TAIL_INDEX, 64);
      },
      /record/,
    ],
    [
      'a record longer than what may stand in the ring',
      (raw) => {
        raw.record(0, 0xffff, 1);
        raw.store(TAIL_INDEX, RING_BYTES);
      },
      /record/,
    ],
    [
      'a padding of no length',
      (raw) => {
        raw.record(0, 0, TYPE_PADDING);
        raw.store(TAIL_INDEX, 8);
      },
      /record/,
    ],
    [
      'a padding beyond the tail',
      (raw) => {
        raw.record(0, 3, TYPE_PADDING);
        raw.store(TAIL_INDEX, 16);
      },
      /record/,
    ],
    ...descriptorLies(),
  ];

  function descriptorLies(): typeof tails {
    const describeAt = (length: number, ...payload: number[]) => {
      return (raw: RawConnector): void => {
        raw.record(0, length, TYPE_DESCRIPTOR, ...payload);
        raw.store(TAIL_INDEX, 32);
      };
    };
    const good = (raw: RawConnector): number => raw.layout.arenaOffset;
    const lie = (payload: (raw: RawConnector) => number[]) => (raw: RawConnector) =>
      describeAt(DESCRIPTOR_BYTES, ...payload(raw))(raw);
    return [
      ['a descriptor of another length', describeAt(16, 0, 0, 0, 0, 0, 0), /record/],
      ['a chunk in the ring', lie(() => [4096, 8, 0, 0, 0, 0]), /outside/],
      [
        'a chunk behind the region',
        lie((raw) => [raw.layout.totalBytes, 1, 0, 0, 0, 0]),
        /outside/,
      ],
      [
        'a chunk across the region’s end',
        lie((raw) => [good(raw), ARENA_BYTES + 1, 0, 0, 0, 0]),
        /outside/,
      ],
      ['a chunk whose end wraps', lie((raw) => [good(raw), 0xffffffff, 0, 0, 0, 0]), /outside/],
      ['a chunk at the end of the numbers', lie(() => [0xffffffff, 1, 0, 0, 0, 0]), /outside/],
      ['a lease without a slot', lie((raw) => [good(raw), 8, RELEASE_SLOTS, 0, 0, 0]), /lease/],
      ['a region never imported', lie((raw) => [good(raw), 8, 0, 0, 7, 0]), /region 7/],
      ['a reserved type', lie((raw) => [good(raw), 8, 0, 0, 0, TYPE_PADDING]), /type/],
    ];
  }

  for (const [what, write, words] of tails) {
    it(`that publishes ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await hostileChannel(t);
      const received = victim.call('receiveAll', as);
      write(raw);
      raw.ring();
      await expectMisbehaved(as, words);
      assert.equal((await received).code, 'ERR_UKSHM_PEER_MISBEHAVED');
      await hungUp(raw.fd);
      await expectHonest();
    });
  }

  it('that publishes a record across the ring’s end', OPTIONS, async (t) => {
    const { raw, as } = await hostileChannel(t);
    const received = victim.call('receiveAll', as);
    raw.record(0, (RING_BYTES - 16) / 8, TYPE_PADDING);
    raw.store(TAIL_INDEX, RING_BYTES - 16);
    raw.ring();
    await until('the padding was read', () => {
      return Atomics.load(raw.otherWords, HEAD_INDEX) === RING_BYTES - 16;
    });
    raw.record(RING_BYTES - 16, 100, 1);
    raw.store(TAIL_INDEX, RING_BYTES - 16 + 112);
    raw.ring();
    await expectMisbehaved(as, /record/);
    await received;
    await expectHonest();
  });

  it('that takes back what it has published', OPTIONS, async (t) => {
    const { raw, as } = await hostileChannel(t);
    raw.record(0, 8, 1);
    raw.record(16, 8, 1);
    raw.store(TAIL_INDEX, 32);
    raw.ring();
    await victim.call('hold', as, 'first');
    raw.store(TAIL_INDEX, 16);
    raw.ring();
    await expectMisbehaved(as, /tail/);
    assert.equal(await codeOf(victim.call('look', 'first')), 'ERR_UKSHM_CLOSED');
    await expectHonest();
  });

  it('that lends more chunks than there are slots', OPTIONS, async (t) => {
    const { raw, as } = await hostileChannel(t);
    const kept = victim.call('keepAll', as);
    let tail = 0;
    for (let lease = 0; lease <= RELEASE_SLOTS; lease++) {
      const at = tail % RING_BYTES;
      const number = lease % RELEASE_SLOTS;
      raw.record(at, DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, raw.layout.arenaOffset, 8, number, 0, 0, 0);
      tail += 32;
      raw.store(TAIL_INDEX, tail);
      raw.ring();
      while (tail - Atomics.load(raw.otherWords, HEAD_INDEX) >= RING_BYTES) await sleep(1);
    }
    await expectMisbehaved(as, /lent at a time/);
    assert.equal((await kept).count, RELEASE_SLOTS);
    await expectHonest();
  });

  const heads: readonly (readonly [string, number])[] = [
    ['beyond what was published', 1 << 20],
    ['behind itself', -8],
    ['that is unaligned', 12],
  ];
  for (const [what, head] of heads) {
    it(`that releases a head ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await hostileChannel(t);
      await victim.call('send', as, 100, 1);
      await victim.call('send', as, 100, 2);
      const flooded = victim.call('flood', as, 1000);
      raw.store(HEAD_INDEX, head);
      raw.ring();
      await expectMisbehaved(as, /head/);
      assert.equal((await flooded).code, 'ERR_UKSHM_PEER_MISBEHAVED');
      await expectHonest();
    });
  }

  const releases: readonly (readonly [string, number, readonly number[], RegExp])[] = [
    ['more than it was lent', 3, [0, 0, 1, 0, 0, 0], /of 2 that it was lent/],
    ['a whole ring of releases', -1, [], /that it was lent/],
    ['what it was not lent', 1, [2, 0], /lease 2/],
    ['a lease that does not exist', 1, [0xffffffff, 0], /lease 4294967295/],
    ['another generation', 1, [0, 1], /generation 1/],
    ['the same chunk twice', 2, [1, 0, 1, 0], /lease 1/],
  ];
  for (const [what, tail, slots, words] of releases) {
    it(`that releases ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await hostileChannel(t);
      await victim.call('send', as, 20_000, 1);
      await victim.call('send', as, 20_000, 2);
      raw.words.set(
        slots.map((word) => word | 0),
        raw.layout.releaseOffset >> 2,
      );
      raw.store(RELEASE_TAIL_INDEX, tail);
      raw.ring();
      await expectMisbehaved(as, words);
      const stats = (await victim.call('stats', as)) as { bytesLent: number };
      assert.equal(stats.bytesLent, 0);
      await expectHonest();
    });
  }

  const frames: readonly (readonly [string, readonly number[], RegExp])[] = [
    ['a frame of type 0', [0], /type 0/],
    ['a frame of an unknown type', [1, 1, 77], /type 77/],
    ['the import of nothing', [2, ...Array(131).fill(0)], /address/],
    ['an import that was never asked for', [3, 9, 0, 0, 0, 1, 0, 0, 0], /never asked/],
  ];
  for (const [what, bytes, words] of frames) {
    it(`that sends ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await hostileChannel(t);
      send(raw.fd, Uint8Array.from(bytes));
      await expectMisbehaved(as, words);
      await expectHonest();
    });
  }

  it('that asks for imports without end', OPTIONS, async (t) => {
    const { raw, as } = await hostileChannel(t);
    const frame = new Uint8Array(132);
    const view = new DataView(frame.buffer);
    frame[0] = 2;
    view.setUint32(17, 20, true);
    frame.set([1, 0, 0, ...Buffer.from('nobody-listens-he')], 21);
    let region = 0;
    for (let burst = 0; burst < 100; burst++) {
      for (let i = 0; i < 100; i++) {
        view.setUint32(1, ++region, true);
        if (send(raw.fd, frame) !== frame.length) break;
      }
      await sleep(1);
      // It does not read the answers either.
      if (receive(raw.fd, new Uint8Array(0)) < 0) continue;
    }
    await expectHonest();
    raw.close();
    await victim.call('closed', as);
    await expectHonest();
  });

  const sealed = (): number => {
    const fd = memfdCreate('hostile', MFD_CLOEXEC | MFD_ALLOW_SEALING);
    truncate(fd, outboxLayout(4096, 65536).totalBytes);
    allocate(fd, outboxLayout(4096, 65536).totalBytes);
    addSeals(fd, ALL_SEALS);
    return fd;
  };
  const imports: readonly (readonly [string, Uint8Array, () => number[], number])[] = [
    ['what it should', welcomeOf(4096, 65536), () => [sealed()], 1],
    ['two descriptors instead of one', welcomeOf(4096, 65536), () => [sealed(), sealed()], 1],
    ['memory of another size', welcomeOf(4096, 131072), () => [sealed()], 0],
    ['impossible sizes', welcomeOf(4097, 0), () => [sealed()], 0],
    ['a file', welcomeOf(4096, 65536), () => [openSync('/proc/version', 'r')], 0],
    ['no descriptor', welcomeOf(4096, 65536), () => [], 0],
    ['garbage', new Uint8Array(WELCOME_BYTES).fill(3), () => [sealed()], 0],
  ];
  for (const [what, welcome, make, status] of imports) {
    it(`that has a listener of its own pass ${what}`, OPTIONS, async (t) => {
      const before = await victim.call('usage');
      const { raw, as } = await hostileChannel(t);
      const at = uniqueName('import');
      const listening = rawListen(at);
      const frame = new Uint8Array(132);
      const address = addressOfName(at).bytes;
      frame.set([2, 5, 0, 0, 0]);
      new DataView(frame.buffer).setUint32(17, address.length, true);
      frame.set(address, 21);
      send(raw.fd, frame);
      const fd = await rawAccept(listening);
      const fds = make();
      sendWith(fd, welcome, fds);
      for (const one of [...fds, fd, listening]) closeDescriptor(one);
      const answer = new Uint8Array(9);
      await until('it answers', () => receive(raw.fd, answer) === answer.length);
      assert.deepEqual([...answer], [3, 5, 0, 0, 0, status, 0, 0, 0]);
      raw.close();
      await victim.call('closed', as);
      await until('nothing of it is left', async () => {
        const after = await victim.call('usage');
        return after.fds.length === before.fds.length && after.memfds === before.memfds;
      });
      await expectHonest();
    });
  }

  for (const waiting of [false, true]) {
    const what = waiting ? ' while a message waits that nobody reads' : '';
    it(`that rings without end${what} costs next to nothing`, OPTIONS, async (t) => {
      const { raw, as } = await hostileChannel(t);
      if (waiting) {
        raw.record(0, 8, 1);
        raw.store(TAIL_INDEX, 16);
      }
      await victim.call('worstTurn');
      const startMs = performance.now();
      const start = await victim.call('cpuMicros');
      let rings = 0;
      while (performance.now() - startMs < 1000) {
        for (let i = 0; i < 50; i++) {
          raw.ring();
          rings++;
        }
        await sleep(0);
      }
      const used = ((await victim.call('cpuMicros')) - start) / 1000;
      const late = await victim.call('worstTurn');
      t.diagnostic(`${rings} rings cost ${used.toFixed(1)} ms of processor time`);
      assert.ok(used < 150, `${used} ms of processor time in a second`);
      assert.ok(late < 500, `a timer was ${late} ms late`);
      await expectHonest();
      raw.close();
      await victim.call('closed', as);
      await victim.call('close', as);
    });
  }

  const greetings: readonly (readonly [string, Uint8Array, number])[] = [
    ['of another version', edited(plainHello(), 4, 99), 1],
    ['of garbage', new Uint8Array(256).fill(0xa5), 6],
    ['of an unknown kind', edited(plainHello(), 8, 3), 6],
    ['with an endless address', edited(plainHello(), 40, 0xffffffff), 6],
    ['that asks for a ring of no power of two', edited(plainHello(), 16, 5000), 6],
    ['that asks for a ring of nothing', edited(plainHello(), 24, 0), 6],
    ['that asks for an odd arena', edited(plainHello(), 20, 4097), 6],
    ['that asks for more than there is', edited(plainHello(), 28, 0x40000000), 3],
  ];
  for (const [what, hello, status] of greetings) {
    it(`with a greeting ${what} is told so`, OPTIONS, async (t) => {
      const fd = rawSocket(name);
      t.after(() => closeDescriptor(fd));
      send(fd, hello);
      const welcome = new Uint8Array(WELCOME_BYTES);
      await until('the refusal comes', () => receive(fd, welcome) === WELCOME_BYTES);
      assert.equal(new DataView(welcome.buffer).getUint32(8, true), status);
      assert.throws(() => decodeWelcome(welcome, name));
      await hungUp(fd);
      await expectHonest();
    });
  }

  const acks: readonly (readonly [string, Parameters<typeof rawConnect>[1]])[] = [
    ['nothing sealed', { seals: F_SEAL_SHRINK | F_SEAL_GROW }],
    ['the seals still open', { seals: F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE }],
    ['the memory still open', { seals: F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL }],
    ['garbage', { ack: new Uint8Array(16).fill(7) }],
    ['another version', { ack: edited(encodeAck(), 4, 2) }],
    ['half a word and silence', { ack: encodeAck().subarray(0, 9) }],
  ];
  for (const [what, manners] of acks) {
    it(`that acknowledges with ${what} gets no channel`, OPTIONS, async (t) => {
      const before = await victim.call('usage');
      const raw = await rawConnect(impatient, manners);
      t.after(() => raw.close());
      await hungUp(raw.fd);
      await until('nothing of it is left', async () => {
        const after = await victim.call('usage');
        return after.fds.length === before.fds.length && after.memfds === before.memfds;
      });
      await expectHonest();
    });
  }

  it('that says half a word and then nothing is left alone in time', OPTIONS, async (t) => {
    const start = performance.now();
    const fds = [0, 10, 255].map((length) => {
      const fd = rawSocket(impatient);
      if (length > 0) send(fd, plainHello().subarray(0, length));
      return fd;
    });
    t.after(() => fds.forEach(closeDescriptor));
    await Promise.all(fds.map(hungUp));
    const ms = performance.now() - start;
    assert.ok(ms >= HANDSHAKE_MS - 50, `after ${ms} ms already`);
    await expectHonest();
  });

  it('that opens connection after connection keeps nobody out', OPTIONS, async (t) => {
    const flooder = await startActor(t);
    const flooded = flooder.call('floodHalfOpen', name, 2000);
    await sleep(50);
    const client = await startActor(t);
    const took: number[] = [];
    for (let i = 0; i < 5; i++) {
      const start = performance.now();
      const accepting = victim.call('accept', name, `flooded${i}`);
      await client.call('connect', name, 'c');
      await accepting;
      await client.call('send', 'c', 1000, 1);
      assert.ok((await victim.call('receive', `flooded${i}`, 1))[0]?.right);
      await client.call('close', 'c');
      await victim.call('close', `flooded${i}`);
      took.push(Math.round(performance.now() - start));
      await expectHonest();
    }
    const count = await flooded;
    t.diagnostic(`${count} half-open connections; honest ones took ${took.join(', ')} ms`);
    assert.ok(count > 100);
  });

  it('that sends descriptors gets rid of none', OPTIONS, async (t) => {
    const before = await victim.call('usage');
    const file = openSync('/proc/version', 'r');
    t.after(() => closeDescriptor(file));
    // In the meeting and behind it; where the kernel refuses (EPERM) that is as well.
    const fd = rawSocket(name);
    const inMeeting = sendWith(fd, plainHello().subarray(0, 100), [file, file]);
    const { raw, as } = await hostileChannel(t);
    const behind = sendWith(raw.fd, Uint8Array.of(1), [file]);
    t.diagnostic(`sendmsg answered ${inMeeting} in the meeting and ${behind} behind it`);
    await sleep(50);
    const { fds } = await victim.call('usage');
    assert.deepEqual(
      fds.filter((one) => one.includes('/proc/version')),
      [],
    );
    raw.close();
    closeDescriptor(fd);
    await victim.call('closed', as);
    await until('nothing of it is left', async () => {
      return (await victim.call('usage')).fds.length === before.fds.length;
    });
    await expectHonest();
  });

  it('that hangs up half-way is gone, and what it had published is read', OPTIONS, async (t) => {
    const { raw, as } = await hostileChannel(t);
    raw.record(0, 8, 5);
    raw.store(TAIL_INDEX, 16);
    // A frame that is cut off.
    send(raw.fd, Uint8Array.of(2, 0, 0));
    raw.close();
    const [told] = await victim.call('receive', as, 1);
    assert.equal(told?.type, 5);
    assert.equal((await victim.call('closed', as)).code, 'ERR_UKSHM_PEER_GONE');
    await expectHonest();
  });

  it('leaves nothing behind, whatever it tried', OPTIONS, async () => {
    await until('the honest channel is all that is there', async () => {
      return (await victim.call('usage')).memfds === 2;
    });
  });
});

/** A copy with one little-endian word replaced. */
function edited(bytes: Uint8Array, offset: number, value: number): Uint8Array {
  const copy = bytes.slice();
  new DataView(copy.buffer).setUint32(offset, value, true);
  return copy;
}
