// What a region asks of the machine: guards, locked and huge pages, other threads, lost regions.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Region, type RegionHandle } from '../../src/memory/region.js';
import { addressOf, canShareBuffers, GUARD_BYTES } from '../../src/sys/memory.js';
import { throwsCode } from './rings.js';
import {
  askFixture,
  EMULATED,
  maps,
  NOBODY,
  openDescriptors,
  regionMaps,
  runFixture,
  statusBytes,
  whyNotAsNobody,
} from './tools.js';

const HUGE = 2 ** 21;

describe('a forbidden access', () => {
  const kinds: readonly [string, string[], RegExp][] = [
    [
      'past the end of a region',
      ['after'],
      /^ukshm: fatal: access beyond the end of region 'walked'$/m,
    ],
    [
      'before its beginning',
      ['before'],
      /^ukshm: fatal: access beyond the end of region 'walked'$/m,
    ],
    ['past the end of a closed one', ['closed'], /^ukshm: fatal: .* of region 'walked'$/m],
    ['beside a region with a long name', ['long-name'], /^ukshm: fatal: .* of region 'n+'?$/m],
    ['in a worker', ['after', 'in-worker'], /^ukshm: fatal: .* of region 'walked'$/m],
  ];
  for (const [name, args, line] of kinds) {
    it(`${name} ends the process, which says what was hit`, async () => {
      const { signal, status, stderr } = await runFixture('fault', args);
      assert.equal(signal, 'SIGSEGV', `status ${status}: ${stderr}`);
      assert.match(stderr, line);
      assert.ok(stderr.endsWith('\n'));
    });
  }

  for (const kind of ['message', 'large-message']) {
    it(`to a received ${kind} ends the process, which names channel, peer and cure`, async () => {
      const { signal, stderr } = await runFixture('fault', [kind]);
      assert.equal(signal, 'SIGSEGV', stderr);
      const said =
        /^ukshm: fatal: write to a received message of 'unit-fault-(\d+)' from process (\d+) of user (\d+): it is read-only. message.copy\(\) gives a writable copy$/m.exec(
          stderr,
        );
      assert.ok(said, stderr);
      assert.equal(said[1], said[2]);
      assert.equal(Number(said[3]), process.getuid?.());
    });
  }
});

describe('a wired region', () => {
  it('is locked into memory until it is closed', { skip: whyNotWired() }, () => {
    const locked = statusBytes('VmLck');
    const region = Region.create({ sizeBytes: 2 ** 20, wired: 'require' });
    assert.equal(region.wired, true);
    assert.deepEqual(region.notes, []);
    assert.equal(statusBytes('VmLck') - locked, 2 ** 20);
    region.close();
    assert.equal(statusBytes('VmLck'), locked);
  });

  it('beyond RLIMIT_MEMLOCK is an error with limit and cure, or a note', {
    skip: whyNotLimited(),
  }, async () => {
    const root = process.getuid?.() === 0;
    const told = await askFixture<{
      code: string;
      message: string;
      descriptors: number;
      regions: number;
      preferred: { wired: boolean; notes: string[] };
      smallIsWired: boolean;
    }>('memlock', [], {
      uid: root ? NOBODY : undefined,
      by: ['prlimit', '--memlock=65536:65536'],
    });
    assert.equal(told.code, 'ERR_UKSHM_MEMLOCK_LIMIT');
    assert.match(told.message, /mlock failed with errno 12: cannot lock 1048576 bytes/);
    assert.match(told.message, /RLIMIT_MEMLOCK is 65536 bytes\. Raise it \('ulimit -l'/);
    assert.deepEqual([told.descriptors, told.regions], [0, 0], 'nothing is left of it');
    assert.equal(told.preferred.wired, false);
    assert.equal(told.preferred.notes.length, 1);
    assert.match(told.preferred.notes[0], /RLIMIT_MEMLOCK is 65536 bytes/);
    assert.ok(told.smallIsWired);
  });

  function whyNotWired(): string | false {
    return EMULATED && 'not possible here: the emulator does not lock pages';
  }

  function whyNotLimited(): string | false {
    if (!existsSync('/usr/bin/prlimit'))
      return 'needs prlimit (Debian: apt-get install util-linux)';
    if (EMULATED) return 'not possible here: the emulator itself is bound by the limit';
    return (process.getuid?.() === 0 && whyNotAsNobody()) || false;
  }
});

describe('a region of huge pages', () => {
  const setting = '/proc/sys/vm/nr_hugepages';
  const count = (field: string): number =>
    Number(
      new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))?.[1],
    );
  let usual = '';
  let why: string | undefined;

  before(() => {
    try {
      usual = readFileSync(setting, 'utf8').trim();
      writeFileSync(setting, String(Number(usual) + 4));
      if (count('HugePages_Free') < 4) why = 'not possible here: no memory for huge pages';
    } catch {
      why = `not possible here: cannot write ${setting}`;
    }
  });
  after(() => {
    if (usual !== '' && why === undefined) writeFileSync(setting, usual);
  });

  it('is rounded up to 2 MiB, lies at a multiple of it between guards, and is given back', (t) => {
    if (why !== undefined) return t.skip(why);
    const free = count('HugePages_Free');
    const region = Region.create({ sizeBytes: HUGE + 1, hugePages: 'require', name: 'huge' });
    assert.equal(region.hugePages, true);
    assert.equal(region.sizeBytes, 2 * HUGE);
    assert.equal(addressOf(region.bytes) % HUGE, 0);
    region.bytes.fill(1);
    const all = maps();
    const at = all.findIndex(({ path }) => path.includes('memfd:ukshm:huge'));
    for (const guard of [all[at - 1], all[at + 1]]) {
      assert.match(guard.rights, /^---/);
      assert.ok(guard.end - guard.start >= GUARD_BYTES);
    }
    assert.deepEqual([all[at - 1].end, all[at].end], [all[at].start, all[at + 1].start]);
    assert.equal(count('HugePages_Free'), free - 2);
    const chunk = region.alloc(HUGE, { contiguous: true });
    assert.equal(chunk.offset % HUGE, 0);
    const attached = Region.attach(region.handle);
    assert.equal(attached.bytes[2 * HUGE - 1], 1);
    attached.close();
    region.close();
    assert.equal(count('HugePages_Free'), free);
    assert.equal(chunk.bytes[0], 0);
  });

  it('is an error that says how many are missing where they are required', () => {
    const sizeBytes = (count('HugePages_Free') + 1) * HUGE;
    const create = (): Region => Region.create({ sizeBytes, hugePages: 'require' });
    const error = throwsCode('ERR_UKSHM_NO_HUGE_PAGES', create, /free huge pages \(errno \d+\)/);
    assert.match(error.message, /\/proc\/sys\/vm\/nr_hugepages$/);
  });

  it('is one of small pages, with a note, where they are preferred', () => {
    const sizeBytes = (count('HugePages_Free') + 1) * HUGE;
    const region = Region.create({ sizeBytes, hugePages: 'prefer' });
    assert.equal(region.hugePages, false);
    assert.equal(region.notes.length, 1);
    assert.match(region.notes[0], /nr_hugepages/);
    region.close();
  });
});

describe('a region in several threads', () => {
  const script = new URL('fixtures/attach.js', import.meta.url);
  type Answer = { value?: unknown; code?: string };
  const ask = async (worker: Worker, question: object): Promise<Answer> => {
    worker.postMessage(question);
    const [answer] = (await once(worker, 'message')) as [Answer];
    return answer;
  };

  it('is attached by its handle, and each closes its own', async () => {
    const region = Region.create({ sizeBytes: 2 ** 16, name: 'threads' });
    const workers = [new Worker(script), new Worker(script)];
    for (const worker of workers) {
      assert.deepEqual(await ask(worker, { handle: region.handle }), { value: 2 ** 16 });
      assert.deepEqual(await ask(worker, { alloc: true }), { code: 'ERR_UKSHM_NOT_OWNER' });
    }
    assert.equal(regionMaps('threads').length, 3);
    await ask(workers[0], { write: { at: 5, value: 55 } });
    assert.equal(region.bytes[5], 55);
    region.bytes[6] = 66;
    assert.deepEqual(await ask(workers[1], { read: 6 }), { value: 66 });
    await ask(workers[0], { close: true });
    assert.deepEqual(await ask(workers[0], { read: 6 }), { code: 'ERR_UKSHM_CLOSED' });
    assert.equal(regionMaps('threads').length, 2);
    region.close();
    assert.deepEqual(await ask(workers[1], { read: 6 }), { value: 66 });
    assert.deepEqual(await ask(workers[0], { handle: region.handle }), {
      code: 'ERR_UKSHM_CLOSED',
    });
    await Promise.all(workers.map((worker) => worker.terminate()));
  });

  it('leaves nothing of a terminated worker', async () => {
    const region = Region.create({ sizeBytes: 2 ** 16, name: 'terminated' });
    const descriptors = openDescriptors();
    const worker = new Worker(script);
    await ask(worker, { handle: region.handle });
    assert.equal(regionMaps('terminated').length, 2);
    await worker.terminate();
    assert.equal(regionMaps('terminated').length, 1);
    assert.deepEqual([...openDescriptors().values()].sort(), [...descriptors.values()].sort());
    region.close();
  });

  it('is a SharedArrayBuffer where asked for, or an error that names the cure', async () => {
    const options = { sizeBytes: 2 ** 16, shared: true, name: 'shared' };
    if (!canShareBuffers()) {
      const create = (): Region => Region.create(options);
      throwsCode('ERR_UKSHM_UNSUPPORTED', create, /needs Node 26 or later; this is v\d+/);
      return;
    }
    const region = Region.create(options);
    assert.ok(region.buffer instanceof SharedArrayBuffer);
    const words = new Int32Array(region.buffer);
    const code = `const { parentPort, workerData } = require('node:worker_threads');
      const words = new Int32Array(workerData);
      Atomics.store(words, 0, 1);
      Atomics.notify(words, 0);
      parentPort.once('message', () => parentPort.postMessage(words[1]));`;
    const worker = new Worker(code, { eval: true, workerData: region.buffer });
    Atomics.wait(words, 0, 0, 10_000);
    assert.equal(words[0], 1);
    words[1] = 77;
    assert.deepEqual(await ask(worker, {} as RegionHandle), 77);
    const attached = Region.attach(region.handle);
    assert.ok(attached.buffer instanceof ArrayBuffer);
    attached.close();
    region.close();
    assert.equal(words[1], 0);
    await worker.terminate();
  });
});

describe('a region that its program forgot', () => {
  it('is reported, its descriptor closed at once, its memory freed with the last view', async () => {
    const told = await askFixture<{
      warnings: string[];
      meanwhile: { descriptors: number; regions: string[]; keptByte: number };
      after: { descriptors: number; regions: number; guards: number; rss: number };
    }>('forget', [], { nodeOptions: ['--expose-gc'] });
    assert.equal(told.warnings.length, 20);
    assert.ok(
      told.warnings.includes(
        "UkshmWarning: region 'lost-3' was forgotten without close(); its memory waited for the " +
          'garbage collector',
      ),
    );
    assert.equal(told.meanwhile.descriptors, 0);
    assert.deepEqual(told.meanwhile.regions, ['/memfd:ukshm:lost-7 (deleted)']);
    assert.equal(told.meanwhile.keptByte, 8);
    assert.equal(told.after.descriptors, 0);
    assert.equal(told.after.regions, 0);
    assert.equal(told.after.guards, 0);
    assert.equal(told.after.rss, 0);
  });
});
