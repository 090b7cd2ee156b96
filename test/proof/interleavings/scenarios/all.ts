// All scenarios, by the module that holds them: one build for all.
export { scenarios as channel } from './channel.js';
export { scenarios as forward } from './forward.js';
export { scenarios as latest } from './latest.js';
export { scenarios as request } from './request.js';
export { scenarios as ring } from './ring.js';
export { scenarios as topic } from './topic.js';
