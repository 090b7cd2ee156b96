import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  decodeImport,
  encodeImport,
  encodeNumbers,
  FRAME_BYTES,
  FRAME_DROP,
  FRAME_IMPORT,
  FRAME_IMPORTED,
  FRAME_RING,
  TOKEN_BYTES,
  tokenKey,
} from '../../src/channel/frames.js';
import {
  ACK_BYTES,
  DEFAULT_SIZE,
  decodeHello,
  decodeWelcome,
  encodeAck,
  encodeHello,
  encodeRefusal,
  encodeWelcome,
  HELLO_BYTES,
  type Hello,
  isAck,
  type Refusal,
  WELCOME_BYTES,
  type Welcome,
} from '../../src/channel/meeting/wire.js';
import { throwsCode } from './rings.js';

const u32 = fc.nat(0xffffffff);
const token = fc.uint8Array({ minLength: TOKEN_BYTES, maxLength: TOKEN_BYTES });
/** `struct sockaddr_un` is at most 110 bytes long. */
const ADDRESS_BYTES_MAX = 110;

const hello: Hello = {
  kind: 'channel',
  flags: 1,
  sendRingBytes: DEFAULT_SIZE,
  sendArenaBytes: 0,
  receiveRingBytes: 4096,
  receiveArenaBytes: 65536,
  token: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 255]),
  importAddress: new Uint8Array([1, 0, 0, 120]),
};

const welcome: Welcome = {
  flags: 2,
  ringBytes: 4096,
  arenaBytes: 2 ** 30,
  backRingBytes: 2 ** 20,
  backArenaBytes: 65536,
  token: new Uint8Array([9, 8, 7, 6, 5, 4, 3, 2]),
};

/** The bytes with another u32 at `offset`. */
function changed(bytes: Uint8Array, offset: number, value: number): Uint8Array {
  const copy = bytes.slice();
  new DataView(copy.buffer).setUint32(offset, value, true);
  return copy;
}

describe('HELLO', () => {
  it('is understood as it was said, by each kind of connector', () => {
    const anyHello = fc.record(
      {
        kind: fc.constantFrom('channel', 'import', 'info' as const),
        flags: u32,
        sendRingBytes: u32,
        sendArenaBytes: u32,
        receiveRingBytes: u32,
        receiveArenaBytes: u32,
        token,
        importAddress: fc.uint8Array({ maxLength: ADDRESS_BYTES_MAX }),
      },
      { noNullPrototype: true },
    );
    const property = fc.property(anyHello, (said) => {
      const bytes = encodeHello(said as Hello);
      assert.equal(bytes.length, HELLO_BYTES);
      assert.deepEqual(decodeHello(bytes), said);
    });
    fc.assert(property);
  });

  it('is read wherever it lies in a buffer', () => {
    const buffer = new Uint8Array(HELLO_BYTES + 13);
    buffer.set(encodeHello(hello), 13);
    assert.deepEqual(decodeHello(buffer.subarray(13)), hello);
  });

  const bad: readonly [string, number, number, Refusal][] = [
    ['another magic', 0, 0x49484b54, 'malformed'],
    ['an older version', 4, 0, 'version'],
    ['a newer version', 4, 0xffffffff, 'version'],
    ['an unknown kind', 8, 3, 'malformed'],
    ['a kind far beyond', 8, 0xffffffff, 'malformed'],
    ['an address longer than an address', 40, ADDRESS_BYTES_MAX + 1, 'malformed'],
    ['an address longer than the greeting', 40, 0xffffffff, 'malformed'],
  ];
  for (const [name, offset, value, refusal] of bad) {
    it(`with ${name} is refused`, () => {
      assert.equal(decodeHello(changed(encodeHello(hello), offset, value)), refusal);
    });
  }

  it('of noise is refused, or is a greeting within its bytes', () => {
    const noise = fc.uint8Array({ minLength: HELLO_BYTES, maxLength: HELLO_BYTES });
    const property = fc.property(noise, fc.boolean(), (bytes, wellBegun) => {
      if (wellBegun) bytes.set(encodeHello(hello).subarray(0, 12));
      const decoded = decodeHello(bytes);
      if (typeof decoded === 'string') return;
      assert.equal(decoded.token.length, TOKEN_BYTES);
      assert.ok(decoded.importAddress.length <= ADDRESS_BYTES_MAX);
    });
    fc.assert(property);
  });
});

describe('WELCOME', () => {
  it('is understood as it was said', () => {
    const anyWelcome = fc.record(
      {
        flags: u32,
        ringBytes: u32,
        arenaBytes: u32,
        backRingBytes: u32,
        backArenaBytes: u32,
        token,
      },
      { noNullPrototype: true },
    );
    const property = fc.property(anyWelcome, (said) => {
      const bytes = encodeWelcome(said);
      assert.equal(bytes.length, WELCOME_BYTES);
      assert.deepEqual(decodeWelcome(bytes, 'x'), said);
    });
    fc.assert(property);
  });

  const refusals: readonly [Refusal, string, RegExp][] = [
    ['version', 'ERR_UKSHM_VERSION', /'frames' speaks another version/],
    ['access', 'ERR_UKSHM_ACCESS_DENIED', /'frames' does not admit this process.*'access'/],
    ['limit', 'ERR_UKSHM_LIMIT', /'frames' has reached a limit/],
    ['no-memory', 'ERR_UKSHM_NO_MEMORY', /'frames' found no memory/],
    ['unknown-token', 'ERR_UKSHM_CANNOT_FORWARD', /'frames' has no such outbox/],
    ['malformed', 'ERR_UKSHM_PEER_MISBEHAVED', /'frames' did not understand/],
  ];
  for (const [refusal, code, text] of refusals) {
    it(`that refuses for '${refusal}' is ${code}`, () => {
      const bytes = encodeRefusal(refusal);
      assert.equal(bytes.length, WELCOME_BYTES);
      throwsCode(code, () => decodeWelcome(bytes, 'frames'), text);
    });
  }

  it('of another protocol, version or status is an error', () => {
    const bytes = encodeWelcome(welcome);
    const decode = (offset: number, value: number) => (): Welcome =>
      decodeWelcome(changed(bytes, offset, value), 'x');
    throwsCode('ERR_UKSHM_PEER_MISBEHAVED', decode(0, 0), /its welcome is none/);
    throwsCode('ERR_UKSHM_VERSION', decode(4, 2));
    throwsCode('ERR_UKSHM_PEER_MISBEHAVED', decode(8, 7));
    throwsCode('ERR_UKSHM_PEER_MISBEHAVED', decode(8, 0xffffffff));
  });
});

describe('ACK', () => {
  it('is one thing only', () => {
    const ack = encodeAck();
    assert.equal(ack.length, ACK_BYTES);
    assert.ok(isAck(ack));
    assert.equal(isAck(changed(ack, 0, 1)), false);
    assert.equal(isAck(changed(ack, 4, 2)), false);
    assert.equal(isAck(new Uint8Array(ACK_BYTES)), false);
  });
});

describe('a frame', () => {
  it('has the length that its first byte says', () => {
    const address = new Uint8Array(ADDRESS_BYTES_MAX).fill(3);
    const frames: [number, Uint8Array][] = [
      [FRAME_RING, encodeNumbers(FRAME_RING)],
      [FRAME_IMPORT, encodeImport({ region: 1, token: hello.token, uid: 0, address })],
      [FRAME_IMPORTED, encodeNumbers(FRAME_IMPORTED, 0xffffffff, 1)],
      [FRAME_DROP, encodeNumbers(FRAME_DROP, 7)],
    ];
    for (const [type, bytes] of frames) {
      assert.equal(bytes[0], type);
      assert.equal(bytes.length, FRAME_BYTES[type]);
    }
    assert.deepEqual(
      [...encodeNumbers(FRAME_IMPORTED, 0x01020304, 1)],
      [3, 4, 3, 2, 1, 1, 0, 0, 0],
    );
  });

  it('that asks for an import is understood as it was said', () => {
    const frame = fc.record(
      {
        region: u32,
        token,
        uid: u32,
        address: fc.uint8Array({ minLength: 3, maxLength: ADDRESS_BYTES_MAX }),
      },
      { noNullPrototype: true },
    );
    fc.assert(
      fc.property(frame, (said) => assert.deepEqual(decodeImport(encodeImport(said)), said)),
    );
  });

  it('that asks for an import without an address, or with one too long, is a lie', () => {
    const address = new Uint8Array([1, 0, 0, 65]);
    const bytes = encodeImport({ region: 1, token: hello.token, uid: 0, address });
    for (const length of [0, 2, ADDRESS_BYTES_MAX + 1, 0xffffffff]) {
      throwsCode('ERR_UKSHM_PEER_MISBEHAVED', () => decodeImport(changed(bytes, 17, length)));
    }
  });
});

describe('a token', () => {
  it('is a key of its own', () => {
    assert.equal(tokenKey(hello.token), '01020304050607ff');
    assert.notEqual(tokenKey(hello.token), tokenKey(welcome.token));
  });
});
