import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { outboxLayout, RELEASE_SLOTS, RELEASE_TAIL_INDEX } from '../../src/memory/outbox-layout.js';
import { ReleaseReader, ReleaseWriter } from '../../src/ring/releases.js';
import { throwsCode } from './rings.js';

class Releases {
  readonly layout = outboxLayout(4096, 0);
  readonly words: Int32Array = new Int32Array(this.layout.totalBytes / 4);
  readonly writer: ReleaseWriter = new ReleaseWriter(this.words, this.layout);
  readonly reader: ReleaseReader = new ReleaseReader(this.words, this.layout);
  readonly seen: [number, number][] = [];

  drain(outstanding: number): number {
    return this.reader.drain(outstanding, (lease, generation) =>
      this.seen.push([lease, generation]),
    );
  }
}

describe('a release ring', () => {
  it('hands over each release once, in order, when it is published', () => {
    const releases = new Releases();
    assert.equal(releases.writer.publish(), false);
    releases.writer.push(3, 0xffffffff);
    releases.writer.push(0xfffffffe, 4);
    assert.equal(releases.drain(9), 0);
    assert.equal(releases.writer.publish(), true);
    assert.equal(releases.writer.publish(), false);
    assert.equal(releases.drain(9), 2);
    assert.equal(releases.drain(9), 0);
    assert.deepEqual(releases.seen, [
      [3, 0xffffffff],
      [0xfffffffe, 4],
    ]);
  });

  it('goes round, with any number of releases at a time up to all slots', () => {
    const releases = new Releases();
    let next = 0;
    for (const count of [1, RELEASE_SLOTS - 1, RELEASE_SLOTS, 7, RELEASE_SLOTS, 3000, 3000]) {
      const first = next;
      for (let i = 0; i < count; i++) releases.writer.push(next++, ~i >>> 0);
      releases.writer.publish();
      releases.seen.length = 0;
      assert.equal(releases.drain(RELEASE_SLOTS), count);
      for (const [i, [lease, generation]] of releases.seen.entries()) {
        assert.equal(lease, first + i);
        assert.equal(generation, ~i >>> 0);
      }
    }
  });

  it('refuses more releases than there are leases', () => {
    const releases = new Releases();
    for (let i = 0; i < 3; i++) releases.writer.push(i, 0);
    releases.writer.publish();
    throwsCode('ERR_UKSHM_PEER_MISBEHAVED', () => releases.drain(2), /released 3 chunks of 2/);
    assert.deepEqual(releases.seen, [], 'none of them is believed');
    assert.equal(releases.drain(3), 3);
  });

  it('refuses a tail that goes back or far ahead', () => {
    for (const tail of [-1, RELEASE_SLOTS + 1, 0x7fffffff]) {
      const releases = new Releases();
      releases.words[RELEASE_TAIL_INDEX] = tail;
      throwsCode('ERR_UKSHM_PEER_MISBEHAVED', () => releases.drain(RELEASE_SLOTS));
    }
  });

  it('has read a release whose handler refuses it', () => {
    const releases = new Releases();
    for (let i = 0; i < 3; i++) releases.writer.push(i, 0);
    releases.writer.publish();
    const refuse = (): void => {
      throw new Error('not lent');
    };
    assert.throws(() => releases.reader.drain(3, refuse), /not lent/);
    assert.equal(releases.drain(3), 2);
  });
});
