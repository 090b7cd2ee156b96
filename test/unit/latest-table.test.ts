// Goal: keys come, change, go and come again; a reader has each one's newest value, reports each
// change once, and believes nothing that cannot be true.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ABSENT,
  bufferOffset,
  KEY_BYTES_MAX,
  KEY_LENGTH_OFFSET,
  type TableLayout,
  tableLayout,
  tableWords,
} from '../../src/patterns/latest/layout.js';
import { TableReader } from '../../src/patterns/latest/table-reader.js';
import { TableWriter } from '../../src/patterns/latest/table-writer.js';
import { throwsCode } from './rings.js';

const LIE = 'ERR_UKSHM_PEER_MISBEHAVED';

class Table {
  readonly layout: TableLayout;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly writer: TableWriter;

  constructor(keys: number = 8, valueBytes: number = 100) {
    this.layout = tableLayout(keys, valueBytes);
    this.bytes = new Uint8Array(this.layout.totalBytes);
    this.words = new Int32Array(this.bytes.buffer);
    this.writer = new TableWriter(this.bytes, this.layout);
  }

  set(key: string, text: string): void {
    this.writer.set(key, Buffer.from(text));
  }

  reader(): TableReader {
    return TableReader.over(this.bytes);
  }
}

function textOf(reader: TableReader, key: string): string | undefined {
  const value = reader.get(key);
  return value && Buffer.from(value).toString();
}

function changesOf(reader: TableReader): [string, string | undefined][] {
  return reader
    .takeChanges()
    .map(({ key, value }) => [key, value && Buffer.from(value).toString()] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1)) as [string, string | undefined][];
}

describe('a table of latest values', () => {
  it('is empty at first', () => {
    const reader = new Table().reader();
    assert.equal(reader.get('a'), undefined);
    assert.equal(reader.version('a'), undefined);
    assert.equal(reader.getInto('a', new Uint8Array(8)), -1);
    assert.deepEqual(reader.keys(), []);
    assert.deepEqual(reader.takeChanges(), []);
  });

  it('has the newest value of each key, of every length', () => {
    const table = new Table(300, 100);
    const reader = table.reader();
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 300; i++) {
        const text = `${round}`.repeat((i * 7 + round) % 101);
        table.set(`key-${i}`, text);
        assert.equal(textOf(reader, `key-${i}`), text);
      }
    }
    assert.equal(reader.keys().length, 300);
    assert.equal(reader.get('key-300'), undefined);
  });

  it('copies into a target that is long enough, whatever the length', () => {
    const table = new Table(4, 400);
    const reader = table.reader();
    const target = new Uint8Array(400);
    for (const length of [0, 1, 7, 8, 9, 63, 255, 256, 257, 399, 400]) {
      const value = Uint8Array.from({ length }, (_, i) => (i * 3 + length) & 255);
      table.writer.set('k', value);
      for (let again = 0; again < 3; again++) {
        target.fill(99);
        assert.equal(reader.getInto('k', target), length);
        assert.deepEqual(target.subarray(0, length), value);
        assert.ok(target.subarray(length).every((byte) => byte === 99));
      }
      if (length === 0) continue;
      const short = new Uint8Array(length - 1);
      for (let again = 0; again < 3; again++) {
        assert.throws(() => reader.getInto('k', short), RangeError);
      }
    }
  });

  it('answers with copies that nobody else changes', () => {
    const table = new Table();
    const reader = table.reader();
    table.set('a', 'one');
    const value = reader.get('a') as Uint8Array;
    for (let i = 0; i < 9; i++) table.set('a', 'two');
    assert.equal(Buffer.from(value).toString(), 'one');
    value.fill(0);
    assert.equal(textOf(reader, 'a'), 'two');
  });

  it('forgets deleted keys, and finds them again in whatever slot', () => {
    const table = new Table(4);
    const reader = table.reader();
    for (const key of ['a', 'b', 'c', 'd']) table.set(key, key);
    assert.deepEqual(reader.keys().sort(), ['a', 'b', 'c', 'd']);
    assert.equal(table.writer.delete('b'), true);
    assert.equal(table.writer.delete('b'), false);
    assert.equal(reader.get('b'), undefined);
    assert.equal(reader.version('b'), undefined);
    table.writer.delete('c');
    table.set('b', 'in the slot of c');
    table.set('e', 'in the slot of b');
    assert.equal(textOf(reader, 'b'), 'in the slot of c');
    assert.equal(textOf(reader, 'e'), 'in the slot of b');
    assert.equal(reader.get('c'), undefined);
    assert.deepEqual(reader.keys().sort(), ['a', 'b', 'd', 'e']);
  });

  it('finds a key that came back in an earlier slot, whatever stands in the later one', () => {
    const table = new Table(4);
    const before = table.reader();
    table.set('a', 'old');
    table.set('b', 'old');
    assert.deepEqual(before.keys(), ['a', 'b']);
    table.writer.delete('b');
    table.writer.delete('a');
    table.set('b', 'in the slot of a');
    for (const reader of [before, table.reader()]) {
      assert.equal(textOf(reader, 'b'), 'in the slot of a');
      assert.equal(reader.getInto('b', new Uint8Array(100)), 16);
      assert.equal(reader.version('b'), 3);
      assert.deepEqual(reader.keys(), ['b']);
    }
    assert.deepEqual(changesOf(before), [
      ['a', undefined],
      ['b', 'in the slot of a'],
    ]);
    assert.deepEqual(changesOf(before), []);
  });

  it('refuses a key too many, and keys that are none', () => {
    const table = new Table(2);
    table.set('a', '');
    table.set('b', '');
    throwsCode('ERR_UKSHM_LIMIT', () => table.set('c', ''), /maxKeys/);
    table.writer.delete('a');
    table.set('c', '');
    table.writer.delete('b');
    for (const key of ['', 'x'.repeat(KEY_BYTES_MAX + 1), '\ud800']) {
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => table.set(key, ''));
    }
    table.set('ü'.repeat(KEY_BYTES_MAX / 2), '');
    assert.equal(table.reader().keys().length, 2);
  });

  it('has a version for each value', () => {
    const table = new Table();
    const reader = table.reader();
    const versions = new Set<number | undefined>();
    for (let i = 0; i < 10; i++) {
      table.set('a', 'same');
      versions.add(reader.version('a'));
      assert.equal(reader.version('a'), reader.version('a'));
    }
    assert.equal(versions.size, 10);
  });
});

describe('changes of latest values', () => {
  it('are those since the reader was made, each key once with its newest value', () => {
    const table = new Table();
    table.set('before', 'x');
    const reader = table.reader();
    assert.equal(reader.hasChanges(), false);
    for (let i = 0; i < 9; i++) table.set('a', `${i}`);
    table.set('b', 'b');
    assert.equal(reader.hasChanges(), true);
    assert.deepEqual(changesOf(reader), [
      ['a', '8'],
      ['b', 'b'],
    ]);
    assert.equal(reader.hasChanges(), false);
    assert.deepEqual(changesOf(reader), []);
    table.set('before', 'y');
    assert.deepEqual(changesOf(reader), [['before', 'y']]);
  });

  it('tell of a deleted key, of one that came back, and of one in its place', () => {
    const table = new Table();
    const reader = table.reader();
    table.set('a', '1');
    table.set('b', '1');
    changesOf(reader);
    table.writer.delete('a');
    assert.deepEqual(changesOf(reader), [['a', undefined]]);
    table.set('c', 'in the slot of a');
    assert.deepEqual(changesOf(reader), [['c', 'in the slot of a']]);
    table.writer.delete('b');
    table.set('d', 'in the slot of b');
    assert.deepEqual(changesOf(reader), [
      ['b', undefined],
      ['d', 'in the slot of b'],
    ]);
    table.writer.delete('c');
    table.writer.delete('d');
    table.set('c', 'elsewhere');
    table.set('d', 'elsewhere');
    assert.deepEqual(changesOf(reader), [
      ['c', 'elsewhere'],
      ['d', 'elsewhere'],
    ]);
  });

  it('that were looked at by get are reported all the same', () => {
    const table = new Table();
    const reader = table.reader();
    table.set('a', '1');
    assert.equal(textOf(reader, 'a'), '1');
    table.writer.delete('a');
    table.set('b', '2');
    assert.equal(reader.get('a'), undefined);
    assert.deepEqual(changesOf(reader), [
      ['a', undefined],
      ['b', '2'],
    ]);
  });
});

describe('a writer of latest values that lies', () => {
  const lies: readonly (readonly [string, RegExp, (table: Table, buffer: number) => void])[] = [
    ['about a length', /a value of/, (table, at) => (table.words[at >> 2] = 101)],
    ['about a length beyond all', /a value of/, (table, at) => (table.words[at >> 2] = -2)],
  ];
  for (const [what, words, spoil] of lies) {
    it(what, () => {
      const table = new Table(4, 100);
      table.set('a', 'a');
      const reader = table.reader();
      for (let b = 0; b < 4; b++) spoil(table, bufferOffset(table.layout, 0, b));
      throwsCode(LIE, () => reader.get('a'), words);
      throwsCode(LIE, () => reader.getInto('a', new Uint8Array(1000)), words);
      throwsCode(LIE, () => reader.version('a'), words);
      throwsCode(LIE, () => reader.keys(), words);
    });
  }

  it('about the length of a key', () => {
    const table = new Table(4, 100);
    table.set('a', 'a');
    for (let b = 0; b < 4; b++) {
      table.words[(bufferOffset(table.layout, 0, b) + KEY_LENGTH_OFFSET) >> 2] = KEY_BYTES_MAX + 1;
    }
    throwsCode(LIE, () => table.reader(), /a key of/);
  });

  it('about the number of slots', () => {
    const table = new Table(4, 100);
    const reader = table.reader();
    table.words[tableWords.directory] = 1;
    table.words[tableWords.directory + 1] = 5;
    throwsCode(LIE, () => reader.get('a'), /5 slots/);
  });

  it('about the table', () => {
    for (const index of [0, 1, 2, 3, 4, 5]) {
      for (const value of [0, 5, -1, 0x7fffffff]) {
        const table = new Table(4, 100);
        if (table.words[index] === value) continue;
        table.words[index] = value;
        throwsCode(LIE, () => table.reader());
      }
    }
    const { bytes } = new Table(4, 100);
    for (const length of [0, 8, 511, bytes.length - 1]) {
      throwsCode(LIE, () => TableReader.over(bytes.subarray(0, length)));
    }
    const shifted = new Uint8Array(bytes.length + 4);
    shifted.set(bytes, 4);
    throwsCode(LIE, () => TableReader.over(shifted.subarray(4)), /aligned/);
  });

  it('by keys and generations at will: the answer is some value or none', () => {
    const table = new Table(4, 100);
    const reader = table.reader();
    let state = 1;
    const random = (): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return state >>> 8;
    };
    for (let i = 0; i < 2000; i++) {
      table.set(`k${random() % 4}`, 'x'.repeat(random() % 100));
      const buffer = bufferOffset(table.layout, random() % 4, random() % 4);
      const spoiled = [random() % 101, random() % 3, random() % 117, random()];
      if (random() % 3 === 0) spoiled[0] = ABSENT;
      for (const [word, value] of spoiled.entries()) table.words[(buffer >> 2) + word] = value | 0;
      for (let k = 0; k < 4; k++) {
        const value = reader.get(`k${k}`);
        assert.ok(value === undefined || value.length <= 100);
      }
      for (const { key, value } of reader.takeChanges()) {
        assert.equal(typeof key, 'string');
        assert.ok(value === undefined || value.length <= 100);
      }
    }
  });
});
