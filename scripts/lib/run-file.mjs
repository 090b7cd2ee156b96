// @ts-check
// Runs one compiled test file in a process of its own and collects what node:test reports there.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ROOT } from './run.mjs';

/** How long a process that a test has just ended may take to be gone. */
const GRACE_MS = 300;
const REPORTER = fileURLToPath(new URL('./test-events.mjs', import.meta.url));

/**
 * @typedef {import('./test-events.mjs').RunningEvent | import('./test-events.mjs').EndedEvent |
 *   import('./test-events.mjs').DoneEvent} Event
 * @typedef {{ name: string, reason: string }} Skip
 * @typedef {{ file: string, tests: number, failures: string[], skips: Skip[], seconds: number,
 *   output: string }} FileResult
 */

/** @type {Set<number>} process groups under way, for Ctrl-C */
const groups = new Set();

/** Ends every test file under way, together with what it started. */
export function killAll() {
  for (const group of groups) killGroup(group);
}

/** @param {number} group */
function killGroup(group) {
  try {
    process.kill(-group, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}

/**
 * @param {number} group
 * @returns {number[]} the processes in it that are not yet dead (a zombie is: its new parent may be
 *   slow to notice)
 */
function livingMembers(group) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        // proc_pid_stat(5): the name in parentheses may itself hold any character.
        const [state, , processGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return Number(processGroup) === group && state !== 'Z';
      } catch {
        return false;
      }
    })
    .map(Number);
}

/**
 * @param {string[]} node - the command that runs Node: a path, or an emulator and a path
 * @param {string} file - relative to the root
 * @param {number} silenceMs - a file that reports nothing for so long hangs and is ended
 * @returns {Promise<FileResult>}
 */
export function runFile(node, file, silenceMs) {
  const start = performance.now();
  const [program, ...first] = node;
  const args = [...first, '--enable-source-maps', `--test-reporter=file://${REPORTER}`];
  const child = spawn(program, [...args, '--test-reporter-destination=stdout', file], {
    cwd: ROOT,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const group = child.pid ?? 0;
  if (group > 0) groups.add(group);

  /** @type {FileResult} */
  const result = { file, tests: 0, failures: [], skips: [], seconds: 0, output: '' };
  let running = '(no test had reported)';
  let hung = false;
  let done = false;
  const watch = setTimeout(() => {
    hung = true;
    killGroup(group);
  }, silenceMs);

  /** @param {Event} event */
  const onEvent = (event) => {
    watch.refresh();
    if (event.kind === 'done') done = true;
    if (event.kind === 'running') running = event.name;
    if (event.kind !== 'ended') return;
    if (!event.suite) result.tests += 1;
    if (!event.ok) result.failures.push(`${event.name}\n${event.error}`);
    if (event.skipped) result.skips.push({ name: event.name, reason: event.skipped });
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text) => {
      result.output += text;
    });
  }
  const events = /** @type {import('node:stream').Readable} */ (child.stdio[3]);
  let rest = '';
  events.setEncoding('utf8').on('data', (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onEvent(JSON.parse(line));
  });

  return new Promise((resolve) => {
    /** @type {Promise<number[]>} */
    let leftBehind = Promise.resolve([]);
    child.on('error', (error) => result.failures.push(`cannot run ${program}: ${error.message}`));
    child.on('exit', () => {
      leftBehind = endGroup(group);
    });
    child.on('close', async (status, signal) => {
      const left = await leftBehind;
      clearTimeout(watch);
      groups.delete(group);
      result.seconds = (performance.now() - start) / 1000;
      if (hung) result.failures.push(`${running}\nreported nothing for ${silenceMs / 1000} s`);
      else if (signal) result.failures.push(`${running}\nthe process was ended by ${signal}`);
      else if (left.length > 0) {
        result.failures.push(`the file left processes behind: ${left.join(', ')} (ended now)`);
      } else if (status !== 0 && result.failures.length === 0) {
        result.failures.push(`${running}\nthe process ended with status ${status}`);
      } else if (!done) {
        result.failures.push(`${running}\nthe process ended before its tests did, or holds none`);
      } else if (result.tests === 0) result.failures.push('the file holds no test');
      resolve(result);
    });
  });
}

/**
 * Ends what a test file left running: it would keep the pipes open and disturb the next file.
 *
 * @param {number} group
 * @returns {Promise<number[]>} the processes that were still there
 */
async function endGroup(group) {
  if (livingMembers(group).length > 0) await sleep(GRACE_MS);
  const left = livingMembers(group);
  killGroup(group);
  return left;
}
