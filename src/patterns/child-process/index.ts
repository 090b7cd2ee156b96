// `ukshm/child-process`: everything of node:child_process, with `fork` replaced.
import * as node from 'node:child_process';
import { fork } from './fork.js';

export * from 'node:child_process';
export { fork };

/** The whole module, as Node's default export. */
const childProcess: typeof node = { ...node, fork };
export default childProcess;
