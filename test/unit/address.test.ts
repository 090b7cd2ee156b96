import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  type Address,
  addressOfName,
  listenAt,
  removeStale,
} from '../../src/channel/meeting/address.js';
import { closeDescriptor } from '../../src/sys/memory.js';
import { throwsCode } from './rings.js';
import { openDescriptors } from './tools.js';

const AF_UNIX = [1, 0];

function text(address: Address): string {
  return Buffer.from(address.bytes.subarray(2)).toString();
}

describe('a name', () => {
  it('without a slash is abstract and carries the version and the user', () => {
    const address = addressOfName('frames.v1_A-9', 1234);
    assert.equal(address.abstract, true);
    assert.equal(address.name, 'frames.v1_A-9');
    assert.deepEqual([...address.bytes.subarray(0, 2)], AF_UNIX);
    assert.equal(text(address), '\0ukshm/1/1234/frames.v1_A-9');
    assert.equal(text(addressOfName('x')), `\0ukshm/1/${process.geteuid?.()}/x`);
  });

  it('with a slash is a path', () => {
    const address = addressOfName('/run/some where/é.ukshm', 1234);
    assert.equal(address.abstract, false);
    assert.equal(text(address), '/run/some where/é.ukshm\0');
    assert.equal(text(addressOfName('./x')), './x\0');
  });

  it('is refused when it is empty, no text, or has letters that are not allowed', () => {
    const names = ['', 'a b', 'é', 'a:b', '@x', 'a\0b', '/tmp/a\0b', undefined, null, 7, {}];
    for (const name of names) {
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => addressOfName(name as string), /^name is /);
    }
  });

  it('may fill the 108 bytes of an address, and no more', () => {
    const longest = 108 - '\0ukshm/1/0/'.length;
    assert.equal(addressOfName('n'.repeat(longest), 0).bytes.length, 110);
    assert.equal(addressOfName(`/${'p'.repeat(106)}`).bytes.length, 110);
    const tooLong = ['n'.repeat(longest + 1), `/${'p'.repeat(107)}`, `/${'é'.repeat(54)}`];
    for (const name of tooLong) {
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', () => addressOfName(name, 0), /a shorter name/);
    }
  });
});

describe('a path at which one listens', () => {
  const rejectsWith = (code: string, message: RegExp) => (error: Error & { code?: string }) =>
    error.code === code && message.test(error.message);

  it('is taken over from a listener that was killed, and from nobody else', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ukshm-address-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const before = openDescriptors().size;
    const address = addressOfName(join(folder, 'meeting.ukshm'));
    const killed = await listenAt(address);
    const mine = new RegExp(`is taken by process ${process.pid} of user ${process.geteuid?.()}`);
    await assert.rejects(listenAt(address), rejectsWith('ERR_UKSHM_NAME_IN_USE', mine));
    await removeStale(address);
    assert.ok(existsSync(address.name), 'somebody listens there');
    // As the kernel closes it for a killed process: the file stays.
    closeDescriptor(killed);
    assert.ok(existsSync(address.name));
    const heir = await listenAt(address);
    closeDescriptor(heir);
    await removeStale(address);
    assert.equal(existsSync(address.name), false);
    assert.equal(openDescriptors().size, before);
  });

  it('is never removed where it is not a socket', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ukshm-address-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const address = addressOfName(join(folder, 'notes.txt'));
    writeFileSync(address.name, 'precious');
    const taken = rejectsWith('ERR_UKSHM_NAME_IN_USE', /is taken by a file that is no socket/);
    await assert.rejects(listenAt(address), taken);
    await removeStale(address);
    assert.equal(readFileSync(address.name, 'utf8'), 'precious');
  });

  it('in a folder that is not there is an error, and leaves nothing open', async () => {
    const before = openDescriptors().size;
    await assert.rejects(listenAt(addressOfName('/no/such/folder/x')));
    assert.equal(openDescriptors().size, before);
  });

  it('belongs to one when many come at once', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ukshm-address-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const address = addressOfName(join(folder, 'crowd.ukshm'));
    closeDescriptor(await listenAt(address));
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => listenAt(address)));
    const won = results.filter((result) => result.status === 'fulfilled');
    assert.equal(won.length, 1);
    for (const { value } of won) closeDescriptor(value);
  });
});
