// The face of ukshm: what programs import.

export { Channel } from './channel/channel.js';
export type { DuplexOptions } from './channel/duplex.js';
export type { Loan, SendLoanOptions } from './channel/loan.js';
export type { Access } from './channel/meeting/access.js';
export { type ConnectOptions, connect } from './channel/meeting/connector.js';
export { listListeners } from './channel/meeting/directory.js';
export {
  Listener,
  type ListenerInfo,
  type ListenOptions,
  listen,
} from './channel/meeting/listener.js';
export type { EndOptions } from './channel/meeting/meeting.js';
export type { Message, MessageCursor } from './channel/message.js';
export type {
  CloseReason,
  MessageOptions,
  ReplyOptions,
  RequestOptions,
  TrySendOptions,
  WaitOptions,
} from './channel/options.js';
export type { ChannelStats } from './channel/stats.js';
export { type ErrorCode, RemoteError, SyscallError, UkshmError } from './core/errors.js';
export {
  type AllocOptions,
  type Chunk,
  Region,
  type RegionHandle,
  type RegionOptions,
  type RegionStats,
  type Wish,
} from './memory/region.js';
export {
  type ReplyBody,
  type RequestContext,
  type RequestHandler,
  type ServeOptions,
  Server,
  serve,
} from './patterns/server.js';
export type { Credentials } from './sys/socket.js';
