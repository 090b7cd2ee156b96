// Goal: whatever a connector says, in the meeting or behind it, ends its own channel and no other;
// the victim neither dies nor works itself to death, and keeps nobody else waiting.
import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
} from '../../src/abi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../src/abi/memfd.js';
import { addressOfName } from '../../src/channel/meeting/address.js';
import { decodeWelcome, encodeAck, WELCOME_BYTES } from '../../src/channel/meeting/wire.js';
import {
  DESCRIPTOR_BYTES,
  outboxLayout,
  TAIL_INDEX,
  TYPE_DESCRIPTOR,
} from '../../src/memory/outbox-layout.js';
import {
  addSeals,
  allocate,
  closeDescriptor,
  memfdCreate,
  truncate,
} from '../../src/sys/memory.js';
import { receive, send } from '../../src/sys/socket.js';
import { cleanup, startActor, uniqueName, until } from './actors.js';
import {
  ALL_SEALS,
  hungUp,
  plainHello,
  rawAccept,
  rawConnect,
  rawListen,
  rawSocket,
  sendWith,
  welcomeOf,
} from './raw-peer.js';
import { HANDSHAKE_MS, startVictim, type Victim } from './victims.js';

const OPTIONS = { timeout: 30_000 };

describe('a hostile connector', () => {
  const suite = cleanup();
  let victim: Victim;
  before(async () => {
    victim = await startVictim(suite);
  });
  after(() => suite.end());

  const frames: readonly (readonly [string, readonly number[], RegExp])[] = [
    ['a frame of type 0', [0], /type 0/],
    ['a frame of an unknown type', [1, 1, 77], /type 77/],
    ['the import of nothing', [2, ...Array(131).fill(0)], /address/],
    ['an import that was never asked for', [3, 9, 0, 0, 0, 1, 0, 0, 0], /never asked/],
  ];
  for (const [what, bytes, words] of frames) {
    it(`that sends ${what}`, OPTIONS, async (t) => {
      const { raw, as } = await victim.hostileChannel(t);
      send(raw.fd, Uint8Array.from(bytes));
      await victim.expectMisbehaved(as, words);
      await victim.expectHonest();
    });
  }

  it('that asks for imports without end', OPTIONS, async (t) => {
    const { raw, as } = await victim.hostileChannel(t);
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
    await victim.expectHonest();
    raw.close();
    await victim.actor.call('closed', as);
    await victim.expectHonest();
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
      const before = await victim.actor.call('usage');
      const { raw, as } = await victim.hostileChannel(t);
      const at = uniqueName('import');
      const listening = rawListen(at);
      send(raw.fd, importFrame(at, 5));
      const fd = await rawAccept(listening);
      const fds = make();
      sendWith(fd, welcome, fds);
      for (const one of [...fds, fd, listening]) closeDescriptor(one);
      const answer = new Uint8Array(9);
      await until('it answers', () => receive(raw.fd, answer) === answer.length);
      assert.deepEqual([...answer], [3, 5, 0, 0, 0, status, 0, 0, 0]);
      if (status === 1) {
        // One byte too long for the region that was imported.
        const { totalBytes } = outboxLayout(4096, 65536);
        void victim.actor.call('receiveAll', as);
        raw.record(0, DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, 8, totalBytes - 7, 0, 0, 5, 0);
        raw.store(TAIL_INDEX, 32);
        raw.ring();
        await victim.expectMisbehaved(as, /outside/);
      }
      raw.close();
      await victim.actor.call('closed', as);
      await until('nothing of it is left', async () => {
        const after = await victim.actor.call('usage');
        return after.fds.length === before.fds.length && after.memfds === before.memfds;
      });
      await victim.expectHonest();
    });
  }

  it('that goes on to use what it let go', OPTIONS, async (t) => {
    const { raw, as } = await victim.hostileChannel(t);
    const at = uniqueName('dropped');
    const listening = rawListen(at);
    send(raw.fd, importFrame(at, 5));
    const fd = await rawAccept(listening);
    const memory = sealed();
    sendWith(fd, welcomeOf(4096, 65536), [memory]);
    for (const one of [memory, fd, listening]) closeDescriptor(one);
    await until('it has mapped it', () => receive(raw.fd, new Uint8Array(9)) === 9);
    const descriptor = [8, 100, 0, 0, 5, 0];
    raw.record(0, DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, ...descriptor);
    raw.store(TAIL_INDEX, 32);
    raw.ring();
    assert.equal((await victim.actor.call('hold', as, 'kept')).lengthBytes, 100);
    // DROP: what is held stays readable, more must not come.
    send(raw.fd, Uint8Array.of(4, 5, 0, 0, 0));
    raw.ring();
    assert.equal((await victim.actor.call('look', 'kept')).lengthBytes, 100);
    void victim.actor.call('receive', as, 1);
    raw.record(32, DESCRIPTOR_BYTES, TYPE_DESCRIPTOR, ...descriptor);
    raw.store(TAIL_INDEX, 64);
    raw.ring();
    await victim.expectMisbehaved(as, /not imported/);
    await victim.expectHonest();
  });

  for (const waiting of [false, true]) {
    const what = waiting ? ' while a message waits that nobody reads' : '';
    it(`that rings without end${what} costs next to nothing`, OPTIONS, async (t) => {
      const { raw, as } = await victim.hostileChannel(t);
      if (waiting) {
        raw.record(0, 8, 1);
        raw.store(TAIL_INDEX, 16);
      }
      await victim.actor.call('worstTurn');
      const startMs = performance.now();
      const start = await victim.actor.call('cpuMicros');
      let rings = 0;
      while (performance.now() - startMs < 1000) {
        raw.ring();
        rings++;
      }
      const used = ((await victim.actor.call('cpuMicros')) - start) / 1000;
      const late = await victim.actor.call('worstTurn');
      t.diagnostic(`${rings} rings cost ${used.toFixed(1)} ms of processor time`);
      assert.ok(used < 150, `${used} ms of processor time in a second`);
      assert.ok(late < 500, `a timer was ${late} ms late`);
      await victim.expectHonest();
      raw.close();
      await victim.actor.call('closed', as);
      await victim.actor.call('close', as);
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
      const fd = rawSocket(victim.name);
      t.after(() => closeDescriptor(fd));
      send(fd, hello);
      const welcome = new Uint8Array(WELCOME_BYTES);
      await until('the refusal comes', () => receive(fd, welcome) === WELCOME_BYTES);
      assert.equal(new DataView(welcome.buffer).getUint32(8, true), status);
      assert.throws(() => decodeWelcome(welcome, victim.name));
      await hungUp(fd);
      await victim.expectHonest();
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
      const before = await victim.actor.call('usage');
      const raw = await rawConnect(victim.impatient, manners);
      t.after(() => raw.close());
      await hungUp(raw.fd);
      await until('nothing of it is left', async () => {
        const after = await victim.actor.call('usage');
        return after.fds.length === before.fds.length && after.memfds === before.memfds;
      });
      await victim.expectHonest();
    });
  }

  it('that says half a word and then nothing is left alone in time', OPTIONS, async (t) => {
    const start = performance.now();
    const fds = [0, 10, 255].map((length) => {
      const fd = rawSocket(victim.impatient);
      if (length > 0) send(fd, plainHello().subarray(0, length));
      return fd;
    });
    t.after(() => fds.forEach(closeDescriptor));
    await Promise.all(fds.map(hungUp));
    const ms = performance.now() - start;
    assert.ok(ms >= HANDSHAKE_MS - 50, `after ${ms} ms already`);
    await victim.expectHonest();
  });

  it('that opens connection after connection keeps nobody out', OPTIONS, async (t) => {
    const flooder = await startActor(t);
    const flooded = flooder.call('floodHalfOpen', victim.name, 1000);
    const client = await startActor(t);
    const took: number[] = [];
    for (let i = 0; i < 5; i++) {
      const start = performance.now();
      const accepting = victim.actor.call('accept', victim.name, `flooded${i}`);
      await client.call('connect', victim.name, 'c');
      await accepting;
      await client.call('send', 'c', 1000, 1);
      assert.ok((await victim.actor.call('receive', `flooded${i}`, 1))[0]?.right);
      await client.call('close', 'c');
      await victim.actor.call('close', `flooded${i}`);
      took.push(Math.round(performance.now() - start));
      await victim.expectHonest();
    }
    await flooded;
    const count = await flooder.call('endFlood');
    t.diagnostic(`${count} half-open connections; honest ones took ${took.join(', ')} ms`);
    assert.ok(Math.max(...took) < 2000);
  });

  it('that sends descriptors gets rid of none', OPTIONS, async (t) => {
    const before = await victim.actor.call('usage');
    const file = openSync('/proc/version', 'r');
    t.after(() => closeDescriptor(file));
    // In the meeting and behind it; where the kernel refuses (EPERM) that is as well.
    const fd = rawSocket(victim.name);
    const inMeeting = sendWith(fd, plainHello().subarray(0, 100), [file, file]);
    const { raw, as } = await victim.hostileChannel(t);
    const behind = sendWith(raw.fd, Uint8Array.of(1), [file]);
    t.diagnostic(`sendmsg answered ${inMeeting} in the meeting and ${behind} behind it`);
    await sleep(50);
    const { fds } = await victim.actor.call('usage');
    assert.deepEqual(
      fds.filter((one) => one.includes('/proc/version')),
      [],
    );
    raw.close();
    closeDescriptor(fd);
    await victim.actor.call('closed', as);
    await until('nothing of it is left', async () => {
      return (await victim.actor.call('usage')).fds.length === before.fds.length;
    });
    await victim.expectHonest();
  });

  it('that hangs up half-way is gone, and what it had published is read', OPTIONS, async (t) => {
    const { raw, as } = await victim.hostileChannel(t);
    raw.record(0, 8, 5);
    raw.store(TAIL_INDEX, 16);
    // A frame that is cut off.
    send(raw.fd, Uint8Array.of(2, 0, 0));
    raw.close();
    const [told] = await victim.actor.call('receive', as, 1);
    assert.equal(told?.type, 5);
    assert.equal((await victim.actor.call('closed', as)).code, 'ERR_UKSHM_PEER_GONE');
    await victim.expectHonest();
  });

  it('leaves nothing behind, whatever it tried', OPTIONS, async () => {
    await until('the honest channel is all that is there', async () => {
      return (await victim.actor.call('usage')).memfds === 2;
    });
  });
});

/** "Map region `region` through this user's listener `name`." */
function importFrame(name: string, region: number): Uint8Array {
  const frame = new Uint8Array(132);
  const address = addressOfName(name).bytes;
  frame.set([2, region, 0, 0, 0]);
  new DataView(frame.buffer).setUint32(17, address.length, true);
  frame.set(address, 21);
  return frame;
}

/** A copy with one little-endian word replaced. */
function edited(bytes: Uint8Array, offset: number, value: number): Uint8Array {
  const copy = bytes.slice();
  new DataView(copy.buffer).setUint32(offset, value, true);
  return copy;
}
