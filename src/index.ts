// The face of ukshm: what programs import.
export type { Access } from './channel/access.js';
export { Channel } from './channel/channel.js';
export { type ConnectOptions, connect } from './channel/connector.js';
export { listListeners } from './channel/directory.js';
export { Listener, type ListenerInfo, type ListenOptions, listen } from './channel/listener.js';
export type { Loan, SendLoanOptions } from './channel/loan.js';
export type { EndOptions } from './channel/meeting.js';
export type { Message, MessageCursor } from './channel/message.js';
export type {
  CloseReason,
  MessageOptions,
  TrySendOptions,
  WaitOptions,
} from './channel/options.js';
export type { ChannelStats } from './channel/stats.js';
export { type ErrorCode, SyscallError, UkshmError } from './core/errors.js';
export {
  type AllocOptions,
  type Chunk,
  Region,
  type RegionHandle,
  type RegionOptions,
  type RegionStats,
  type Wish,
} from './memory/region.js';
export type { Credentials } from './sys/socket.js';
