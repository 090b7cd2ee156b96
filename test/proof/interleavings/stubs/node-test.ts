// In place of node:test, for unit tests on the build: collects them.
import assert from 'node:assert/strict';

type Body = () => unknown;

export interface Collected {
  readonly name: string;
  readonly body: Body;
}

const collected: Collected[] = [];
const path: string[] = [];

/** What was collected since the last time. */
export function takeTests(): Collected[] {
  return collected.splice(0);
}

export function describe(name: string, body: Body): void {
  path.push(name);
  body();
  path.pop();
}

export function it(name: string, ...rest: unknown[]): void {
  const body = rest.at(-1);
  assert.ok(typeof body === 'function');
  collected.push({ name: [...path, name].join(' > '), body: body as Body });
}
