// 'ukshm/latest': one sets values by keys, others read the newest.
export type { Access } from '../../channel/meeting/access.js';
export type { CloseReason, WaitOptions } from '../../channel/options.js';
export type { Credentials } from '../../sys/socket.js';
export type { JoinOptions } from '../joining.js';
export { readValues, type ValueReader } from './reader.js';
export type { Change } from './table-reader.js';
export { openValues, type ValuesOptions, type ValueWriter } from './writer.js';
