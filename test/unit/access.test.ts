import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describe as inWords } from '../../src/channel/ends.js';
import { type Access, admits, checkAccess } from '../../src/channel/meeting/access.js';
import { overflowUid, ownUid } from '../../src/sys/process.js';
import type { Credentials } from '../../src/sys/socket.js';
import { throwsCode } from './rings.js';

const own = ownUid();
const overflow = overflowUid();
const peer = (uid: number, pid: number = 1000): Credentials => ({ pid, uid, gid: uid });

describe('access', () => {
  it("of 'same-user' admits processes of this user, and nobody else", () => {
    assert.equal(admits('same-user', peer(own)), own !== overflow);
    assert.equal(admits('same-user', peer(own + 1)), false);
    assert.equal(admits('same-user', peer(overflow)), false);
  });

  it('by lists admits the users and the processes on them', () => {
    const access = { uids: [7, 8], pids: [42] };
    assert.equal(admits(access, peer(7)), true);
    assert.equal(admits(access, peer(9)), false);
    assert.equal(admits(access, peer(9, 42)), true);
    assert.equal(admits({ pids: [42] }, peer(own, 43)), false, 'not even the same user');
    assert.equal(admits({ uids: [] }, peer(own)), false);
  });

  it('never admits the user that stands for all unmapped users by its number', () => {
    // In a user namespace every user that it does not map looks like this one.
    assert.equal(admits({ uids: [overflow] }, peer(overflow)), false);
    assert.equal(admits({ uids: [overflow], pids: [42] }, peer(overflow, 42)), true);
  });

  it('by a function is what the function answers, if that is true', () => {
    const seen: Credentials[] = [];
    const access = (asked: Credentials): boolean => seen.push(asked) > 0 && asked.uid === 5;
    assert.equal(admits(access, peer(5)), true);
    assert.equal(admits(access, peer(6)), false);
    assert.deepEqual(seen, [peer(5), peer(6)]);
    assert.equal(admits((() => 'yes') as unknown as Access, peer(own)), false);
    assert.equal(admits((async () => true) as unknown as Access, peer(own)), false);
  });

  it('of another shape is refused', () => {
    const good: Access[] = ['same-user', { uids: [] }, { pids: [1] }, () => false];
    for (const access of good) assert.equal(checkAccess('access', access), access);
    for (const access of ['anyone', '', null, undefined, {}, { uids: 7 }, 0, []]) {
      const check = (): Access => checkAccess('access', access as Access);
      throwsCode('ERR_UKSHM_INVALID_ARGUMENT', check, /^access is .*'same-user'/);
    }
  });
});

describe('a peer', () => {
  it('is told in words', () => {
    assert.equal(inWords({ pid: 12, uid: 34, gid: 56 }), 'process 12 of user 34');
  });
});
