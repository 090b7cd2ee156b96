// In place of src/sys/socket.ts: sockets of the world.
import type { Steps } from '../explore/promise.js';
import { world } from '../explore/world.js';

export function send(fd: number, bytes: Uint8Array): Steps<number> {
  return world.send(fd, bytes);
}

export function receive(fd: number, bytes: Uint8Array): Steps<number> {
  return world.receive(fd, bytes);
}

export function peerPidfd(): never {
  throw new Error('parties meet where the scenario has them meet');
}
