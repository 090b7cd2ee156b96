// 'ukshm/topic': one publishes, many subscribe.
export type { Access } from '../../channel/meeting/access.js';
export type { CloseReason, WaitOptions } from '../../channel/options.js';
export type { Credentials } from '../../sys/socket.js';
export type { JoinOptions } from '../joining.js';
export type { PublishLoanOptions, TopicLoan } from './loan.js';
export { merge } from './merge.js';
export type { TopicCursor, TopicMessage } from './message.js';
export type { SlowPolicy, SubscribeOptions, TopicOptions } from './options.js';
export type { SubscriberStats } from './roster.js';
export { type Subscription, type SubscriptionStats, subscribe } from './subscription.js';
export { openTopic, type Topic, type TopicStats } from './topic.js';
