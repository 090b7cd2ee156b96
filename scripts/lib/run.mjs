// @ts-check
// Runs other programs for the scripts in this folder: quietly, and with their output when they fail.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The folder of package.json. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A step that failed; its message is all that the user needs to see. */
export class StepError extends Error {}

/**
 * Runs a program to its end and returns what it printed.
 *
 * @param {string} program
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, timeoutMs?: number, input?: string }} [options]
 * @returns {Promise<{ status: number, stdout: string, stderr: string }>} status 127: no such program
 */
export function run(program, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd ?? ROOT,
      env: options.env ?? process.env,
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    child.stdin.on('error', () => {});
    child.stdin.end(options.input);
    child.on('error', (error) => resolve({ status: 127, stdout, stderr: error.message }));
    child.on('close', (status, signal) => {
      if (signal) stderr += `\nended by ${signal}`;
      resolve({ status: status ?? 1, stdout, stderr });
    });
  });
}

/**
 * Runs a program that must succeed.
 *
 * @param {string} what - the step, for the message
 * @param {string} program
 * @param {string[]} args
 * @param {Parameters<typeof run>[2] & { cure?: string }} [options]
 * @returns {Promise<string>} its standard output
 * @throws {StepError} with its whole output and `options.cure`
 */
export async function mustRun(what, program, args, options = {}) {
  const { status, stdout, stderr } = await run(program, args, options);
  if (status === 0) return stdout;
  const output = `${stdout}${stderr}`.trim();
  const cure = options.cure ? `\n${options.cure}` : '';
  throw new StepError(`${what} failed (${program}, status ${status}):\n${output}${cure}`);
}

/**
 * Runs a tool of node_modules that must succeed.
 *
 * @param {string} name - as in node_modules/.bin
 * @param {string[]} args
 */
export function tool(name, args) {
  // Its output is only shown after a failure, perhaps in a log.
  const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' };
  return mustRun(name, `${ROOT}node_modules/.bin/${name}`, args, { env });
}

/**
 * Runs npm: the one that runs this script, if one does.
 *
 * @param {string} what
 * @param {string[]} args
 * @param {Parameters<typeof mustRun>[3]} [options]
 */
export function npm(what, args, options) {
  const cli = process.env.npm_execpath;
  const own = cli?.endsWith('npm-cli.js');
  const quiet = ['--loglevel=error', '--no-audit', '--no-fund'];
  if (own && cli) return mustRun(what, process.execPath, [cli, ...args, ...quiet], options);
  return mustRun(what, 'npm', [...args, ...quiet], options);
}

/**
 * Runs a program on this terminal. Ctrl-C reaches it by itself; other signals are passed on, and
 * its way of ending becomes ours.
 *
 * @param {string} program
 * @param {string[]} args
 * @returns {Promise<number>}
 */
export function inTheForeground(program, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit' });
    process.on('SIGINT', () => {});
    for (const signal of /** @type {const} */ (['SIGTERM', 'SIGHUP'])) {
      process.on(signal, () => child.kill(signal));
    }
    child.on('error', reject);
    child.on('close', (status, signal) => {
      if (signal) console.error(`ended by ${signal}`);
      resolve(status ?? 1);
    });
  });
}

/**
 * The `main` of a script: a StepError is shown as its message, anything else with its stack.
 *
 * @param {() => Promise<number | undefined>} main - returns the exit status
 */
export async function runMain(main) {
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    console.error(error instanceof StepError ? error.message : error);
    process.exitCode = 1;
  }
}
