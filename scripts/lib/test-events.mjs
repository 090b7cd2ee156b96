// @ts-check
// A reporter for node:test that runs inside the tested process and tells the runner (run-file.mjs)
// what happens, one JSON object a line, on descriptor 3: standard output stays the test's own.
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';

const RUNNER_FD = 3;

/**
 * @typedef {{ kind: 'running', name: string }} RunningEvent
 * @typedef {{ kind: 'ended', name: string, ok: boolean, suite: boolean, skipped?: string,
 *   error?: string }} EndedEvent
 * @typedef {{ kind: 'done' }} DoneEvent - the last one: a file that exits early does not tell it
 */

/** @param {RunningEvent | EndedEvent | DoneEvent} event */
function tell(event) {
  writeSync(RUNNER_FD, `${JSON.stringify(event)}\n`);
}

/**
 * @param {string | boolean | undefined} skip
 * @returns {string | undefined}
 */
function reasonOf(skip) {
  if (skip === undefined || skip === false) return undefined;
  return typeof skip === 'string' && skip !== '' ? skip : 'no reason given';
}

/**
 * @param {any} failure - node:test's wrapper around what the test threw
 * @returns {string} without the frames inside Node, which say nothing about the fault
 */
function describe(failure) {
  const thrown = failure?.cause ?? failure;
  // An AssertionError's message already holds its properties.
  const text = thrown?.code === 'ERR_ASSERTION' ? thrown.stack : inspect(thrown);
  return text.replace(/\n +at .*\bnode:internal\/.*(?=\n|$)/g, '');
}

/** @param {AsyncIterable<{ type: string, data: any }>} source */
export default async function* report(source) {
  /** @type {string[]} */
  const path = [];
  for await (const { type, data } of source) {
    if (type === 'test:dequeue') tell({ kind: 'running', name: data.name });
    if (type === 'test:start') {
      path.length = data.nesting;
      path.push(data.name);
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const name = [...path.slice(0, data.nesting), data.name].join(' > ');
    const suite = data.details?.type === 'suite';
    const skipped = reasonOf(data.skip) ?? reasonOf(data.todo);
    const error = data.details?.error;
    // A parent whose only fault is a failed child has nothing to add to the child's own report.
    if (type === 'test:fail' && error?.failureType !== 'subtestsFailed') {
      tell({ kind: 'ended', name, ok: false, suite, error: describe(error) });
    } else {
      tell({ kind: 'ended', name, ok: true, suite, skipped });
    }
  }
  tell({ kind: 'done' });
  yield '';
}
