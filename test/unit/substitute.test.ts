// Goal: what is posted in place of a message is cloned to the same; what cannot be is left to Node.
// Method: both are cloned by Node, with what they transfer, and compared.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import {
  BUFFER_BYTES_MIN,
  type Substitute,
  substitute,
} from '../../src/patterns/worker/substitute.js';

const allocate = (lengthBytes: number): ArrayBuffer => new ArrayBuffer(lengthBytes);
const large = (fill: number): ArrayBuffer => new Uint8Array(BUFFER_BYTES_MIN + 5).fill(fill).buffer;

function substituteOf(message: unknown, transfer: readonly object[] = []): Substitute {
  const result = substitute(message, transfer, allocate);
  assert.ok(result !== undefined, 'nothing was substituted');
  return result;
}

/** What arrives. */
function cloned(message: unknown, transfer: readonly object[] = []): unknown {
  return structuredClone(message, { transfer: transfer as ArrayBuffer[] });
}

describe('a message in place of one with large parts', () => {
  const buffer = large(3);
  const circular: Record<string, unknown> = { part: new Uint8Array(buffer) };
  circular.self = circular;
  const cases: readonly (readonly [what: string, message: unknown])[] = [
    ['an ArrayBuffer', buffer],
    ['a Buffer', Buffer.from(buffer)],
    ['views of all kinds', { a: new Float64Array(buffer, 8, 9), b: new DataView(buffer, 1, 3) }],
    ['parts beside small ones', { part: buffer, small: new Uint8Array([1]), text: 'x', n: -0 }],
    ['several parts', [large(1), { deep: [[large(2)]] }, large(3)]],
    ['Map and Set', new Map<unknown, unknown>([[{ k: 1 }, new Set([buffer])]])],
    [
      'dates, expressions, holes, bigints',
      [new Date(5), /x/gi, Object.assign([], { 1: 5 }), undefined, 5n, Number.NaN, buffer],
    ],
    ['what has no prototype', Object.assign(Object.create(null), { buffer })],
    ['properties that are not listed', Object.defineProperty({ buffer }, 'hidden', { value: 1 })],
  ];
  for (const [what, message] of cases) {
    it(`is cloned to the same: ${what}`, () => {
      const instead = substituteOf(message);
      assert.deepEqual(cloned(instead.message, instead.transfer), cloned(message));
      assert.equal(buffer.byteLength, BUFFER_BYTES_MIN + 5);
    });
  }

  it('keeps cycles, and views of one buffer on one buffer', () => {
    const parts = {
      circular,
      a: new Uint8Array(buffer, 5),
      b: new Int16Array(buffer, 2, 4),
      buffer,
    };
    const instead = substituteOf(parts);
    const clone = cloned(instead.message, instead.transfer) as typeof parts;
    assert.equal(clone.circular.self, clone.circular);
    assert.equal(clone.a.buffer, clone.buffer);
    assert.equal(clone.b.buffer, clone.buffer);
    assert.deepEqual([clone.a.byteOffset, clone.b.byteOffset, clone.b.length], [5, 2, 4]);
  });

  it('is taken as it is now', () => {
    const part = new Uint8Array(large(1));
    const instead = substituteOf({ part });
    part.fill(2);
    const clone = cloned(instead.message, instead.transfer) as { part: Uint8Array };
    assert.ok(clone.part.every((byte) => byte === 1));
  });

  it('moves what the program itself moves', () => {
    const moved = large(4);
    const message = { moved: new Uint8Array(moved), part: large(5) };
    const instead = substituteOf(message, [moved]);
    assert.equal(instead.transfer.length, 2);
    const clone = cloned(instead.message, instead.transfer) as typeof message;
    assert.equal(moved.byteLength, 0);
    assert.equal(clone.moved.byteLength, BUFFER_BYTES_MIN + 5);
  });
});

describe('a message that is left to Node', () => {
  const part = large(1);
  class Job {
    part = part;
  }
  const cases: readonly (readonly [what: string, message: unknown, transfer?: object[]])[] = [
    ['nothing large', { a: [1, new Uint8Array(100)] }],
    ['a primitive', 'x'.repeat(1_000_000)],
    ['a part that the program moves', part, [part]],
    [
      'a getter',
      {
        part,
        get a() {
          throw new Error('called');
        },
      },
    ],
    ['a proxy', new Proxy({ part }, {})],
    ['an instance of a class', new Job()],
    ['a port', { part, port: new MessageChannel().port1 }],
    ['a function', { part, f: () => {} }],
    ['a symbol', [part, Symbol('s')]],
    ['an error', { part, error: new Error('x') }],
    ['a buffer that can grow', resizable(BUFFER_BYTES_MIN)],
    ['a shared buffer', [part, new SharedArrayBuffer(8)]],
    ['more values than are looked at', [...Array.from({ length: 2000 }, (_, i) => i), part]],
    ['a huge array', [part, new Array(1e6)]],
    ['a part beside one that was moved away', [part, detached()]],
  ];
  for (const [what, message, transfer] of cases) {
    it(`because it is or holds ${what}`, () => {
      assert.equal(substitute(message, transfer ?? [], allocate), undefined);
    });
  }
});

function resizable(lengthBytes: number): ArrayBuffer {
  const Class = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer;
  return new Class(lengthBytes, { maxByteLength: lengthBytes * 2 });
}

function detached(): ArrayBuffer {
  const buffer = large(2);
  structuredClone(buffer, { transfer: [buffer] });
  return buffer;
}
