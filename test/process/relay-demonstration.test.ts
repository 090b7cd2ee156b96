// `ukshm relay <input>`: everything that a stranger is shown, on a file of a few megabytes.
import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { DemonstrationReport } from '../../src/relay/demonstration.js';
import {
  descendantsOf,
  folderFor,
  isAlive,
  noise,
  sha256,
  start,
  ukshm,
  until,
} from './relay-tools.js';

const isRoot = process.geteuid?.() === 0;

describe('the demonstration', () => {
  it('shows the same page, the four ways, the kill and the digests, and leaves nothing', async (t) => {
    const folder = folderFor(t);
    const input = join(folder, 'input');
    const bytes = noise(24_000_001);
    writeFileSync(input, bytes);
    const env = { ...process.env, TMPDIR: folder };
    const { status, stdout, stderr } = await ukshm(['relay', input, '--rounds', '2', '--json'], {
      env,
    });
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const report = JSON.parse(stdout.toString()) as DemonstrationReport;
    assert.equal(report.bytes, bytes.length);
    assert.ok(report.digests.agree);
    assert.equal(report.digests.input, sha256(bytes));
    const frames = Object.values(report.frames);
    assert.equal(frames.length, 3);
    if (isRoot) {
      assert.equal(new Set(frames.map(({ frame }) => frame)).size, 1);
      assert.ok(frames.every(({ frame }) => (frame ?? 0) > 0));
    } else {
      assert.ok(frames.every(({ reason }) => reason !== undefined));
    }
    assert.deepEqual(
      report.rows.map(({ way }) => way),
      ['ukshm', 'streams', 'send', 'blocking'],
    );
    for (const row of report.rows) {
      assert.ok(row.gigabytesPerSecond > 0 && row.cpuSeconds > 0, row.way);
      assert.equal(row.bytes, bytes.length);
    }
    assert.deepEqual(report.kill?.left, []);
    assert.deepEqual(Object.keys(report.kill?.noticedMs ?? {}).sort(), ['reader', 'writer']);
    assert.deepEqual(readdirSync(folder), ['input']);
  });

  it('is drawn without a terminal too, in lines of at most 100 characters', async (t) => {
    const folder = folderFor(t);
    const input = join(folder, 'input');
    writeFileSync(input, noise(500_000));
    const env = { ...process.env, TMPDIR: folder };
    const args = ['relay', 'input', '--no-hash', '--rounds', '1', '--chunk-bytes', '64K'];
    const { status, stdout, stderr } = await ukshm(args, { env, cwd: folder });
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const text = stdout.toString();
    for (const word of [
      /reader \d+ .* examiner \d+ .* writer \d+/,
      /GB\/s/,
      /child\.send/,
      /Try next/,
    ]) {
      assert.match(text, word);
    }
    assert.ok(!text.includes('\x1b'), 'no colours');
    for (const line of text.split('\n')) {
      // A command to try is as long as the paths in it.
      const allowed = line.startsWith('  node ') ? 200 : 100;
      assert.ok(line.length <= allowed && line.trimEnd() === line, line);
    }
    assert.deepEqual(readdirSync(folder), ['input']);
  });

  for (const stage of ['relay/reader.js', 'baselines/pipe-stage.js', 'baselines/send-stage.js']) {
    it(`stops at Ctrl-C during ${stage} and leaves no file and no process`, async (t) => {
      const folder = folderFor(t);
      const env = { ...process.env, TMPDIR: folder };
      writeFileSync(join(folder, 'input'), noise(8_000_000));
      const relay = start(['relay', join(folder, 'input')], { env });
      const supervisor = relay.child.pid as number;
      const seen = await until(`a process of ${stage}`, () => {
        const below = descendantsOf(supervisor);
        return [...below.values()].some((command) => command.includes(stage)) && below;
      });
      process.kill(supervisor, 'SIGINT');
      const { status, stderr } = await relay.ended;
      assert.equal(status, 130);
      assert.match(stderr, /^ukshm: [^\n]+ \(SIGINT\)\n$/);
      await until('all processes to be gone', () => ![...seen.keys()].some(isAlive));
      assert.deepEqual(readdirSync(folder), ['input']);
    });
  }

  it('asks for an output where the input can be read only once', async () => {
    const { status, stderr } = await ukshm(['relay', '-']);
    assert.equal(status, 2);
    assert.match(stderr, /^ukshm: without an output .*\n$/);
  });
});
