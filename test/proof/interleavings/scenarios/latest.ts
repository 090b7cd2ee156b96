// A table of latest values: one writes, one reads, nobody waits.
import assert from 'node:assert/strict';
import { tableLayout } from '../../../../src/patterns/latest/layout.js';
import { TableReader } from '../../../../src/patterns/latest/table-reader.js';
import { TableWriter } from '../../../../src/patterns/latest/table-writer.js';
import type { Scenario } from '../explore/scenario.js';
import { payload } from './pair.js';

const KEY = 'a';
const LAYOUT = tableLayout(2, 8);

/** The number of the payload that these bytes are, whole. */
function numberOf(bytes: Uint8Array): number {
  const n = ((bytes[0] as number) >> 4) - 1;
  assert.deepEqual(bytes, payload(n, bytes.length), 'the value is whole');
  return n;
}

/** @param reads - what the reader does, one letter each: `g`et, `i`nto a target, `c`hanges. */
function valuesScenario(name: string, writes: number, reads: string): Scenario {
  return {
    name,
    small: true,
    setUp: (world) => {
      const memory = world.memory('table', LAYOUT.totalBytes, (offset) => `+${offset}`);
      const bytes = new Uint8Array(memory.buffer);
      const writer = new TableWriter(bytes, LAYOUT);
      world.party('writer', () => {
        for (let n = 0; n < writes; n++) writer.set(KEY, payload(n, 8));
      });
      world.party('reader', () => {
        const reader = TableReader.over(bytes);
        const target = new Uint8Array(8);
        let newest = -1;
        const note = (value: Uint8Array): void => {
          const n = numberOf(value);
          assert.ok(n >= newest, 'never an older one than before');
          newest = n;
        };
        for (const read of reads) {
          if (read === 'g') {
            const value = reader.get(KEY);
            if (value !== undefined) note(value);
          } else if (read === 'i') {
            if (reader.getInto(KEY, target) >= 0) note(target);
          } else {
            for (const { value } of reader.takeChanges()) if (value !== undefined) note(value);
          }
        }
      });
      return () =>
        assert.equal(numberOf(TableReader.over(bytes).get(KEY) as Uint8Array), writes - 1);
    },
  };
}

/** A key goes, and another one gets its slot: a reader never has one's value for the other's. */
const movedKeys: Scenario = {
  name: 'latest values, keys that move',
  setUp: (world) => {
    const memory = world.memory('table', LAYOUT.totalBytes, (offset) => `+${offset}`);
    const bytes = new Uint8Array(memory.buffer);
    const writer = new TableWriter(bytes, LAYOUT);
    const values: Record<string, Uint8Array> = {
      a: payload(1, 8),
      b: payload(2, 8),
      c: payload(3, 8),
    };
    world.party('writer', () => {
      for (const [next, last] of ['a', 'ba', 'cb', 'ac']) {
        if (last !== undefined) writer.delete(last);
        writer.set(next as string, values[next as string] as Uint8Array);
      }
    });
    world.party('reader', () => {
      const reader = TableReader.over(bytes);
      for (const key of ['a', 'b', 'c', 'a']) {
        const value = reader.get(key);
        if (value !== undefined) assert.deepEqual(value, values[key], `the value of ${key}`);
      }
      for (const { key, value } of reader.takeChanges()) {
        if (value !== undefined) assert.deepEqual(value, values[key], `the change of ${key}`);
      }
    });
    return () => assert.deepEqual(TableReader.over(bytes).keys(), ['a']);
  },
};

export const scenarios: readonly Scenario[] = [
  valuesScenario('latest values, read often', 6, 'gg'),
  valuesScenario('latest values, into a target', 5, 'iii'),
  valuesScenario('latest values, changes', 3, 'cc'),
  movedKeys,
];
