// Test vectors of joining, topics and shared regions: see make-vectors.ts. The expectations are
// written here by hand, from FORMAT.md.
import { ascii, type Patch, patches, record, toHex, words } from './vector-bytes.js';

/** Vectors of these kinds are those of this module. */
export const TOPIC_KINDS: readonly string[] = ['shared', 'request', 'answer', 'word'];

const NEVER = 0xffffffff;
const JOIN = 1;
const LAST_WORD = 2;
const REFUSALS = [
  ...['CANNOT_FORWARD', 'INVALID_ARGUMENT', 'LIMIT', 'MAY_NOT_BLOCK', 'NOT_OFFERED', 'NO_MEMORY'],
  ...['TIMEOUT', 'TOO_SLOW'],
];
/** What is no JSON, or no object. */
const NO_NOTES: readonly (readonly [string, string])[] = [
  ['empty', ''],
  ['words', 'topic, please'],
  ['null', 'null'],
  ['array', '[]'],
  ['string', '"prices"'],
  ['unfinished', '{"topic":"prices"'],
  ['comma', '{"topic":"prices",}'],
  ['single-quotes', "{'topic':'prices'}"],
  ['no-name', '{prices:1}'],
  ['no-value', '{"topic":}'],
  ['more-behind', '{"topic":"prices"} x'],
  ['two', '{"topic":"prices"}{}'],
  ['crossed', '{"topic":["prices"}]'],
  ['not-a-number', '{"topic":"prices","x":NaN}'],
  ['endless', '{"topic":"prices","x":-Infinity}'],
  ['number-01', '{"topic":"prices","x":01}'],
  ['number-dot', '{"topic":"prices","x":1.}'],
  ['number-plus', '{"topic":"prices","x":+1}'],
  ['number-e', '{"topic":"prices","x":1e}'],
  ['line-break', '{"topic":"pri\nces"}'],
  ['escape', '{"topic":"pri\\xces"}'],
  ['short-escape', '{"topic":"pri\\u00"}'],
  ['zero-byte', '{"topic":"prices"}\0'],
  ['too-long', `{"topic":"prices","x":"${'y'.repeat(4072)}"}`],
];

function requests(): string[] {
  const line = (name: string, expect: string, text: string, block = 0, type = JOIN): string =>
    `request ${name} prices ${block} ${type} ${toHex(ascii(text))} ${expect}`;
  const ok = (slow: string, depth: number): string => `ok:slow=${slow},depth=${depth}`;
  const usual = ok('drop-oldest', 256);
  const good: readonly (readonly [string, string, string])[] = [
    ['usual', '{"topic":"prices"}', usual],
    ['all', '{"topic":"prices","slow":"drop-newest","depth":1}', ok('drop-newest', 1)],
    ['deepest', '{"depth":4096,"topic":"prices","slow":"disconnect"}', ok('disconnect', 4096)],
    ['oldest', '{"topic":"prices","slow":"drop-oldest","depth":7}', ok('drop-oldest', 7)],
    ['folder', '{"topic":"/somewhere/else/prices"}', usual],
    ['escapes', '{"\\u0074opic":"pri\\u0063es"}', usual],
    ['space', ' {\t"topic" :\r\n"prices" , "depth" : 7 } ', ok('drop-oldest', 7)],
    ['more', '{"x":[{"y":[1,-2.5e+3,0,true,null,"}"]},{},[]],"topic":"prices"}', usual],
    ['last-counts', '{"topic":"other","topic":"prices"}', usual],
    ['fraction-0', '{"topic":"prices","depth":5.0}', ok('drop-oldest', 5)],
    ['exponent', '{"topic":"prices","depth":50E-1}', ok('drop-oldest', 5)],
    ['longest', `{"topic":"prices","x":"${'y'.repeat(4071)}"}`, usual],
  ];
  const others = ['{}', '{"topic":"other"}', '{"topic":7}', '{"topic":null}', '{"topic":"price"}'];
  others.push('{"topic":"prices\\u0000"}', '{"values":"prices"}');
  const wrong = ['"slow":"fast"', '"slow":7', '"slow":null', '"depth":0', '"depth":4097'];
  wrong.push('"depth":1.5', '"depth":"7"', '"depth":true', '"depth":null', '"depth":-1');
  wrong.push('"depth":1e9', '"depth":1e999', '"depth":[7]');
  const block = '{"topic":"prices","slow":"block"}';
  return [
    ...good.map(([name, text, expect]) => line(name, expect, text)),
    line('block', ok('block', 256), block, 1),
    line('may-not-block', 'refused:ERR_UKSHM_MAY_NOT_BLOCK', block),
    ...others.map((text, i) => line(`other-${i}`, 'refused:ERR_UKSHM_NOT_OFFERED', text)),
    ...wrong.map((member, i) => {
      const text = `{"topic":"prices",${member}}`;
      return line(`wrong-${i}`, 'refused:ERR_UKSHM_INVALID_ARGUMENT', text);
    }),
    ...NO_NOTES.map(([name, text]) => line(name, 'broken', text)),
    line('type-0', 'broken', '{"topic":"prices"}', 0, 0),
    line('type-2', 'broken', '{"topic":"prices"}', 0, LAST_WORD),
    line('asked', 'broken', '{"topic":"prices"}', 0, 0x4001),
  ];
}

function answers(): string[] {
  const line = (name: string, expect: string, text: string, type = JOIN): string =>
    `answer ${name} ${type} ${toHex(ascii(text))} ${expect}`;
  const lie = 'error:ERR_UKSHM_PEER_MISBEHAVED';
  const ok = (number: number, kept: number): string => `ok:number=${number},kept=${kept}`;
  const lies = ['{"kept":0}', '{"sequence":5}', '{"sequence":-1,"kept":0}'];
  lies.push('{"sequence":4294967296,"kept":0}', '{"sequence":"5","kept":0}');
  lies.push(
    '{"sequence":5.5,"kept":0}',
    '{"sequence":true,"kept":0}',
    '{"sequence":5,"kept":null}',
  );
  return [
    line('usual', ok(5, 0), '{"sequence":5,"kept":0}'),
    line('kept', ok(2, 3), '{"sequence":5,"kept":3}'),
    line('wraps', ok(NEVER - 1, 3), '{"sequence":1,"kept":3}'),
    line('greatest', ok(NEVER, 0), `{"sequence":${NEVER},"kept":0}`),
    line('exponents', ok(4000000000, 0), '{"sequence":4e9,"kept":0.0e5}'),
    line('minus-0', ok(0, 0), '{"sequence":-0,"kept":0}'),
    line('more', ok(5, 0), '{"later":{"sequence":6},"sequence":5,"kept":0}'),
    ...lies.map((text, i) => line(`lie-${i}`, lie, text)),
    ...NO_NOTES.map(([name, text]) => line(name, lie, text)),
    line('type-0', lie, '{"sequence":5,"kept":0}', 0),
    line('type-3', lie, '{"sequence":5,"kept":0}', 3),
    line('asked', lie, '{"sequence":5,"kept":0}', 0x4001),
    ...REFUSALS.map((name) => {
      const code = `ERR_UKSHM_${name}`;
      const text = `{"code":"${code}","message":"because"}`;
      return line(`refused-${name.toLowerCase()}`, `error:${code}`, text, LAST_WORD);
    }),
    line('made-up', lie, '{"code":"EVIL"}', LAST_WORD),
    line('code-7', lie, '{"code":7}', LAST_WORD),
    line('code-null', lie, '{"code":null}', LAST_WORD),
    line('closed', 'error:ERR_UKSHM_PEER_CLOSED', '{"sequence":5}', LAST_WORD),
    line('last-words', lie, 'good-bye', LAST_WORD),
  ];
}

function lastWords(): string[] {
  const line = (name: string, expect: string, text: string, type = LAST_WORD): string =>
    `word ${name} ${type} ${toHex(ascii(text))} ${expect}`;
  const ok = (missed: number, code = 'none'): string => `ok:missed=${missed},code=${code}`;
  const slow = '{"sequence":6,"code":"ERR_UKSHM_TOO_SLOW"}';
  return [
    line('usual', ok(0), '{"sequence":5}'),
    line('missed', ok(4), '{"sequence":9}'),
    line('wraps', ok(NEVER - 2), '{"sequence":2}'),
    line('too-slow', ok(1, 'ERR_UKSHM_TOO_SLOW'), slow),
    line('limit', ok(0, 'ERR_UKSHM_LIMIT'), '{"sequence":5,"code":"ERR_UKSHM_LIMIT"}'),
    line('no-number', 'broken', '{}'),
    line('number-minus', 'broken', '{"sequence":-1}'),
    line('made-up', 'broken', '{"sequence":5,"code":"EVIL"}'),
    line('array', 'broken', '[5]'),
    line('words', 'broken', 'good-bye'),
    line('type-1', 'broken', '{"sequence":5,"kept":0}', JOIN),
    line('type-3', 'broken', '{"sequence":5}', 3),
    line('type-16383', 'broken', '', 16383),
    line('asked', 'broken', '{"sequence":5}', 0x4002),
    line('asked-data', 'broken', 'data', 0x4000),
  ];
}

/** Where the arena of a shared region starts, and where it ends if it has 65536 bytes. */
const REGION_ARENA = 65536;
const REGION_END = 131072;

function shared(): string[] {
  const text = ascii('in the region');
  const published = (...bodies: (readonly number[])[]): Patch[] => {
    const bytes = Buffer.concat(bodies.map((body) => record(0xfffe, 3, words(...body))));
    return [
      [128, words(bytes.length)],
      [4096, bytes],
    ];
  };
  const line = (name: string, expect: string, ...bodies: (readonly number[])[]): string => {
    const others = patches([[REGION_ARENA + 4096, text]]);
    return `shared ${name} 4096 0 65536 ${patches(published(...bodies))} ${others} ${expect}`;
  };
  const at = REGION_ARENA + 4096;
  const good = [at, text.length, 0, 0, 1, 0];
  const goodText = `0/3/${toHex(text)}`;
  const lies: readonly (readonly [string, readonly number[]])[] = [
    ['behind', [REGION_END, 1, 0, 0, 1, 0]],
    ['across', [REGION_ARENA, 65537, 0, 0, 1, 0]],
    ['far', [0x7fffffff, 8, 0, 0, 1, 0]],
    ['length-wraps', [REGION_ARENA, NEVER, 0, 0, 1, 0]],
    ['offset-wraps', [NEVER, 1, 0, 0, 1, 0]],
    ['other-region', [at, 8, 0, 0, 2, 0]],
    ['no-region', [at, 8, 0, 0, NEVER, 0]],
    ['own-outbox', [REGION_ARENA, 8, 0, 0, 0, 0]],
    ['lease', [at, 8, 4096, 0, 1, 0]],
    ['reserved-type', [at, 8, 0, 0, 1, 0xc001]],
    ['unasked', [at, 8, 0, 0, 1, 0x8000]],
  ];
  return [
    line('usual', goodText, good),
    line('twice', `${goodText},${goodText}`, good, [at, text.length, 4095, 9, 1, 0]),
    line('type', `7/3/${toHex(text)}`, [at, text.length, 0, 0, 1, 7]),
    line('part', `0/3/${toHex(text.slice(3, 6))}`, [at + 3, 3, 0, 0, 1, 0]),
    line('before-the-arena', '0/3/00x4096', [1024, 4096, 0, 0, 1, 0]),
    line('end', '0/3/00x8', [REGION_END - 8, 8, 0, 0, 1, 0]),
    line('empty', '0/3/-', [REGION_END, 0, 0, 0, 1, 0]),
    line('good-then-bad', `${goodText},broken`, good, [REGION_END, 1, 1, 0, 1, 0]),
    ...lies.map(([name, body]) => line(name, 'broken', body)),
  ];
}

/** All of them. */
export function topicVectors(): string[] {
  return [shared(), requests(), answers(), lastWords()].flat();
}
