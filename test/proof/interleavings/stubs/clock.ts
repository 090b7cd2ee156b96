// In place of src/sys/clock.ts: time passes only where nobody can go on.
import { current } from '../explore/current.js';
import { Party } from '../explore/party.js';
import { world } from '../explore/world.js';

export function nowMs(): number {
  return world.nowMs;
}

export function after(delayMs: number, callback: () => unknown): () => void {
  return timer(delayMs, callback, false);
}

export function afterAlive(delayMs: number, callback: () => unknown): () => void {
  return timer(delayMs, callback, true);
}

function timer(delayMs: number, callback: () => unknown, alive: boolean): () => void {
  const { party } = current;
  if (!(party instanceof Party)) throw new Error('a timer outside a party');
  const timer = { at: world.nowMs + delayMs, callback, alive };
  party.timers.add(timer);
  return () => party.timers.delete(timer);
}

export function nextTurn(callback: () => unknown): void {
  const { party } = current;
  if (party instanceof Party) party.turns.push(callback);
  else party.jobs.push(callback);
}

export function processorCount(): number {
  return 2;
}

export function random(lengthBytes: number): Uint8Array {
  return new Uint8Array(lengthBytes).fill(7);
}

export function warn(): void {}
