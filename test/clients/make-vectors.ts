// Makes clients/vectors/vectors.txt: bytes of meetings, frames and outboxes, valid and invalid, and
// what every client must make of them. The expectations are written here by hand, from FORMAT.md.
//
// Run this module to write the file: node dist/test/clients/make-vectors.js
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from '../house/root.js';
import { topicVectors } from './topic-vectors.js';
import { ascii, block, type Patch, patches, record, toHex, words } from './vector-bytes.js';

export const VECTORS_FILE: string = join(ROOT, 'clients', 'vectors', 'vectors.txt');

const HEAD = `# Test vectors of ukshm's format (docs/FORMAT.md), read by every client's tests.
# One vector a line; fields are separated by single spaces. Made by test/clients/make-vectors.ts.
#
# HEX is lower-case hex in segments joined by '.'; '00x102' is the byte 00 102 times; '-' is empty.
# hello NAME HEX EXPECT         what a listener makes of a HELLO: ok:FIELDS, or refused:STATUS
# welcome NAME HEX EXPECT       what a connector makes of a WELCOME: ok:FIELDS, or error:CODE
# ack NAME HEX EXPECT           what a listener makes of an ACK: ok or broken
# frames NAME HEX EXPECT        bytes on the socket after the meeting: frames, and broken at the end
#                               where they break the protocol; an incomplete last frame is kept
# reader NAME RING ARENA PATCHES EXPECT
#                               a fresh reader of an outbox of these sizes, zeros but for PATCHES
#                               (OFFSET=HEX, joined by ';'): messages TYPE/ID/HEX, requests
#                               qTYPE/ID/HEX, and broken where it must refuse. Each is released
#                               at once; a request is answered by its own bytes.
# writer NAME RING ARENA SENDS PATCHES EXPECT
#                               a fresh side sends messages of these lengths, then the PATCHES are
#                               made in the peer's outbox, and it collects what was released:
#                               used=BYTES,leased=COUNT or broken
# shared NAME RING ARENA SHARED PATCHES OTHERS EXPECT
#                               as reader; it has mapped a shared region with an arena of SHARED
#                               bytes as number 1, in which OTHERS were made
# request NAME TOPIC BLOCK TYPE HEX EXPECT
#                               what the publisher of TOPIC (BLOCK 1: who may block) makes of a
#                               connector's first message: ok:slow=…,depth=…; refused:CODE; broken
# answer NAME TYPE HEX EXPECT   what a subscriber makes of its publisher's first message:
#                               ok:number=…,kept=…; error:CODE
# word NAME TYPE HEX EXPECT     what a subscriber to whom number 5 comes next makes of a message
#                               that is not one of the topic: ok:missed=…,code=…; broken
`;

const NEVER = 0xffffffff;
const TOKEN = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const TOKEN_HEX = '0102030405060708';
const HELLO = 0x49484b55;
const WELCOME = 0x45574b55;
const ACK = 0x4b4f4b55;
const ABSTRACT: Uint8Array = Buffer.concat([Uint8Array.of(1, 0, 0), ascii('ukshm/1/0/a')]);

function hello(
  kind: number,
  flags: number,
  sizes: number[],
  address: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const length = words(address.length);
  return block(256, words(HELLO, 1, kind, flags, ...sizes), TOKEN, length, address);
}

function hellos(): string[] {
  const usual = [NEVER, NEVER, NEVER, NEVER];
  const never = `sendRing=${NEVER},sendArena=${NEVER},receiveRing=${NEVER},receiveArena=${NEVER}`;
  const plain = hello(0, 0, usual);
  const changed = (at: number, value: number): Uint8Array => {
    const bytes = plain.slice();
    new DataView(bytes.buffer).setUint32(at, value, true);
    return bytes;
  };
  const sizes = 'sendRing=4096,sendArena=0,receiveRing=1048576,receiveArena=65536';
  const longest = block(110, ascii('\x01\0/'), ascii('x'.repeat(107)));
  const line = (name: string, bytes: Uint8Array, expect: string): string =>
    `hello ${name} ${toHex(bytes)} ${expect}`;
  const ok = (kind: number, flags: number, of: string, address: Uint8Array): string =>
    `ok:kind=${kind},flags=${flags},${of},token=${TOKEN_HEX},address=${toHex(address)}`;
  const none = new Uint8Array(0);
  return [
    line('usual', plain, ok(0, 0, never, none)),
    line('sizes', hello(0, 0, [4096, 0, 2 ** 20, 65536]), ok(0, 0, sizes, none)),
    line('cannot-fence', hello(0, 1, usual), ok(0, 1, never, none)),
    line('address', hello(0, 0, usual, ABSTRACT), ok(0, 0, never, ABSTRACT)),
    line('longest-address', hello(0, 0, usual, longest), ok(0, 0, never, longest)),
    line('import', hello(1, 0, [0, 0, 0, 0]), ok(1, 0, never.replaceAll(`${NEVER}`, '0'), none)),
    line('info', hello(2, 0, [0, 0, 0, 0]), ok(2, 0, never.replaceAll(`${NEVER}`, '0'), none)),
    line('magic', changed(0, HELLO + 1), 'refused:6'),
    line('zeros', new Uint8Array(256), 'refused:6'),
    line('version', changed(4, 2), 'refused:1'),
    line('version-0', changed(4, 0), 'refused:1'),
    line('kind', changed(8, 3), 'refused:6'),
    line('address-too-long', changed(40, 111), 'refused:6'),
    line('address-far-too-long', changed(40, NEVER), 'refused:6'),
  ];
}

function welcomes(): string[] {
  const welcome = (status: number, flags: number, magic = WELCOME, version = 1): Uint8Array =>
    block(64, words(magic, version, status, flags, 262144, 4194304, 4096, 0), TOKEN);
  const ok = (flags: number): string =>
    `ok:flags=${flags},ring=262144,arena=4194304,backRing=4096,backArena=0,token=${TOKEN_HEX}`;
  const refusals = [
    ['version', 1, 'VERSION'],
    ['access', 2, 'ACCESS_DENIED'],
    ['limit', 3, 'LIMIT'],
    ['no-memory', 4, 'NO_MEMORY'],
    ['unknown-token', 5, 'CANNOT_FORWARD'],
    ['malformed', 6, 'PEER_MISBEHAVED'],
    ['unknown-status', 77, 'PEER_MISBEHAVED'],
  ] as const;
  const line = (name: string, bytes: Uint8Array, expect: string): string =>
    `welcome ${name} ${toHex(bytes)} ${expect}`;
  return [
    line('usual', welcome(0, 0), ok(0)),
    line('cannot-fence', welcome(0, 1), ok(1)),
    line('huge-pages', welcome(0, 2), ok(2)),
    ...refusals.map(([name, status, code]) =>
      line(name, welcome(status, 0), `error:ERR_UKSHM_${code}`),
    ),
    line('magic', welcome(0, 0, HELLO), 'error:ERR_UKSHM_PEER_MISBEHAVED'),
    line('other-version', welcome(0, 0, WELCOME, 2), 'error:ERR_UKSHM_VERSION'),
  ];
}

function acks(): string[] {
  const ack = (magic: number, version: number): string => toHex(block(16, words(magic, version)));
  return [
    `ack usual ${ack(ACK, 1)} ok`,
    `ack magic ${ack(WELCOME, 1)} broken`,
    `ack version ${ack(ACK, 2)} broken`,
    `ack zeros ${ack(0, 0)} broken`,
  ];
}

function frames(): string[] {
  const ring = Uint8Array.of(1);
  const request = (region: number, length: number): Uint8Array =>
    block(132, Uint8Array.of(2), words(region), TOKEN, words(1000, length), ABSTRACT);
  const imported = block(9, Uint8Array.of(3), words(7, 1));
  const drop = block(5, Uint8Array.of(4), words(7));
  const importText = `import/7/1000/${TOKEN_HEX}/${toHex(ABSTRACT)}`;
  const line = (name: string, expect: string, ...parts: Uint8Array[]): string =>
    `frames ${name} ${toHex(Buffer.concat(parts))} ${expect}`;
  return [
    line('ring', 'ring', ring),
    line('rings', 'ring,ring,ring', ring, ring, ring),
    line(
      'all',
      `ring,${importText},imported/7/1,drop/7,ring`,
      ...[ring, request(7, ABSTRACT.length), imported, drop, ring],
    ),
    line('incomplete', 'ring', ring, imported.subarray(0, 8)),
    line('type-0', 'broken', Uint8Array.of(0)),
    line('type-5', 'ring,broken', ring, Uint8Array.of(5)),
    line('type-255', 'drop/7,broken', drop, Uint8Array.of(255)),
    line('address-too-long', 'broken', request(7, 111)),
    line('address-too-short', 'broken', request(7, 2)),
  ];
}

const TAIL = 128;
const HEAD_AT = 256;
const RELEASE_TAIL = 384;
const RING = 4096;
const ARENA = 65536;
const RELEASES = 4096 + 4096;
/** Where the arena of an outbox with a ring of 4096 bytes starts. */
const ARENA_AT = 65536;

function readers(): string[] {
  const line = (name: string, expect: string, list: readonly Patch[]): string =>
    `reader ${name} ${RING} ${ARENA} ${patches(list)} ${expect}`;
  const published = (...records: Uint8Array[]): Patch[] => {
    const bytes = Buffer.concat(records);
    return [
      [TAIL, words(bytes.length)],
      [4096, bytes],
    ];
  };
  const one = record(5, 9, ascii('hello'));
  const longest = ascii('y'.repeat(512));
  const padding = (units: number): Uint8Array => {
    const bytes = record(0xffff, 0, new Uint8Array(0));
    new DataView(bytes.buffer).setUint16(0, units, true);
    return bytes;
  };
  const descriptor = (...body: number[]): Uint8Array => record(0xfffe, 3, words(...body));
  const chunk: Patch = [ARENA_AT + 4096, ascii('in the arena')];
  const good = descriptor(ARENA_AT + 4096, 12, 0, 0, 0, 2);
  const chunkText = `2/3/${toHex(ascii('in the arena'))}`;
  const helloText = `5/9/${toHex(ascii('hello'))}`;
  return [
    line('nothing', '-', []),
    line('one', helloText, published(one)),
    line('empty', '0/0/-', published(record(0, 0, new Uint8Array(0)))),
    line('three', `${helloText},0/1/-,${helloText}`, published(one, record(0, 1, ascii('')), one)),
    line('longest', `0/4294967295/${toHex(longest)}`, published(record(0, NEVER, longest))),
    line('greatest-type', `16383/0/00`, published(record(0x3fff, 0, Uint8Array.of(0)))),
    line('request', `q7/4/${toHex(ascii('ask'))}`, published(record(0x4007, 4, ascii('ask')))),
    line('padding', helloText, published(padding(2), new Uint8Array(8), one)),
    line('only-padding', '-', published(padding(1))),
    line('chunk', chunkText, [...published(good), chunk]),
    line('chunk-of-all', `0/3/00x65536`, published(descriptor(ARENA_AT, 65536, 0, 0, 0, 0))),
    line('empty-chunk', '1/3/-', published(descriptor(ARENA_AT + 65536, 0, 4095, 0, 0, 1))),
    line('large-request', `q2/3/${toHex(ascii('in the arena'))}`, [
      ...published(descriptor(ARENA_AT + 4096, 12, 0, 0, 0, 0x4002)),
      chunk,
    ]),
    line('tail-unaligned', 'broken', [[TAIL, words(12)]]),
    line('tail-beyond', 'broken', [[TAIL, words(RING + 8)]]),
    line('tail-behind', 'broken', [[TAIL, words(NEVER - 7)]]),
    line('record-behind-tail', 'broken', [
      [TAIL, words(16)],
      [4096, record(0, 0, ascii('x'.repeat(9)))],
    ]),
    line('good-then-bad', `${helloText},broken`, published(one, record(0, 0, ascii(''), 1))),
    line('record-across-end', 'broken', [
      [TAIL, words(RING)],
      [4096, padding((RING - 16) / 8)],
      [4096 + RING - 16, record(0, 0, new Uint8Array(0), 100)],
    ]),
    line('padding-0', 'broken', published(padding(0))),
    line('padding-behind-tail', 'broken', published(padding(2))),
    line('reserved-type', 'broken', published(record(0xc001, 0, ascii('')))),
    line('reserved-type-below', 'broken', published(record(0xfffd, 0, ascii('')))),
    line('unasked-reply', 'broken', published(record(0x8000, 0, ascii('')))),
    line('unasked-failure', 'broken', published(record(0xc000, 0, ascii('')))),
    line('descriptor-length', 'broken', published(record(0xfffe, 0, words(ARENA_AT, 1, 0, 0)))),
    ...descriptorLies(line, published, descriptor),
  ];
}

function descriptorLies(
  line: (name: string, expect: string, list: readonly Patch[]) => string,
  published: (...records: Uint8Array[]) => Patch[],
  descriptor: (...body: number[]) => Uint8Array,
): string[] {
  const lies: readonly (readonly [string, number[]])[] = [
    ['chunk-in-ring', [4096, 8, 0, 0, 0, 0]],
    ['chunk-before-arena', [ARENA_AT - 8, 8, 0, 0, 0, 0]],
    ['chunk-behind', [ARENA_AT + 65536, 1, 0, 0, 0, 0]],
    ['chunk-across', [ARENA_AT, 65537, 0, 0, 0, 0]],
    ['chunk-wraps', [ARENA_AT, NEVER, 0, 0, 0, 0]],
    ['chunk-at-the-end-of-numbers', [NEVER, 1, 0, 0, 0, 0]],
    ['lease', [ARENA_AT, 8, 4096, 0, 0, 0]],
    ['region', [ARENA_AT, 8, 0, 0, 1, 0]],
    ['chunk-type', [ARENA_AT, 8, 0, 0, 0, 0xc001]],
    ['chunk-type-wide', [ARENA_AT, 8, 0, 0, 0, 0x10000]],
    ['unasked-chunk', [ARENA_AT, 8, 0, 0, 0, 0x8000]],
  ];
  return lies.map(([name, body]) => line(name, 'broken', published(descriptor(...body))));
}

function writers(): string[] {
  const line = (
    name: string,
    sends: readonly number[],
    expect: string,
    list: readonly Patch[],
    ring = RING,
    arena = ARENA,
  ): string => `writer ${name} ${ring} ${arena} ${sends.join(',')} ${patches(list)} ${expect}`;
  const head = (value: number): Patch => [HEAD_AT, words(value)];
  const release = (tail: number, ...slots: number[]): Patch[] => [
    [RELEASE_TAIL, words(tail)],
    [RELEASES, words(...slots)],
  ];
  return [
    line('nothing-released', [8, 0, 5], 'used=40,leased=0', []),
    line('one-released', [8, 0, 5], 'used=24,leased=0', [head(16)]),
    line('all-released', [8, 0, 5], 'used=0,leased=0', [head(40)]),
    line('head-within-a-record', [8, 0, 5], 'used=32,leased=0', [head(8)]),
    line('chunk-lent', [9000], 'used=32,leased=1', []),
    line('chunk-read', [9000], 'used=0,leased=1', [head(32)]),
    line('chunk-released', [9000], 'used=0,leased=0', [head(32), ...release(1, 0, 0)]),
    line('second-released', [9000, 9000], 'used=64,leased=1', release(1, 1, 0)),
    line('head-beyond', [8], 'broken', [head(24)]),
    line('head-unaligned', [8], 'broken', [head(4)]),
    line('head-behind', [8], 'broken', [head(NEVER - 7)]),
    line('release-of-nothing', [9000], 'broken', release(2, 0, 0, 1, 0)),
    line('release-not-lent', [9000], 'broken', release(1, 1, 0)),
    line('release-twice', [9000, 9000], 'broken', release(2, 0, 0, 0, 0)),
    line('release-generation', [9000], 'broken', release(1, 0, 1)),
    line('release-far', [9000], 'broken', release(1, NEVER, 0)),
    line('release-behind', [9000], 'broken', release(NEVER, 0, 0)),
  ];
}

/** The whole file. */
export function makeVectors(): string {
  const channels = [hellos(), welcomes(), acks(), frames(), readers(), writers()].flat();
  const lines = [...channels, ...topicVectors()];
  return `${HEAD}${lines.join('\n')}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync(VECTORS_FILE, makeVectors());
}
