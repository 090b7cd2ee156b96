// Runs in a forked child before anything of its program: makes itself invisible, and waits for the
// parent to invite. Only then is the rest loaded, so a child that sends and receives nothing large
// pays a millisecond. CommonJS, because `--require` leaves the way the program is loaded as it is.
type Send = (
  this: unknown,
  message?: unknown,
  handle?: unknown,
  options?: unknown,
  callback?: unknown,
) => boolean;
type Emit = (this: unknown, event: string, ...args: unknown[]) => boolean;
type Message = Readonly<Record<string, unknown>>;

const { isMainThread } = require('node:worker_threads') as typeof import('node:worker_threads');

/** The parent has put this file in front of whatever NODE_OPTIONS were (fork.ts). */
function restoreOptions(): void {
  const { NODE_OPTIONS: options = '' } = process.env;
  const [ours, space] = /^--require="(?:[^"\\]|\\.)*preload\.cjs"( ?)/.exec(options) ?? [];
  if (ours === undefined) return;
  if (space === '') delete process.env.NODE_OPTIONS;
  else process.env.NODE_OPTIONS = options.slice(ours.length);
}

function waitForInvitation(nodeSend: Send): void {
  const nodeEmit = process.emit as Emit;
  const invitations: Message[] = [];
  const onEvent = (event: string, args: unknown[]): boolean => {
    const [message] = args;
    if (event === 'internalMessage' && isInvitation(message) && invitations.push(message) === 1) {
      // Without the addon everything goes Node's own way.
      import('./child.js').then(({ begin }) => begin(bypass, invitations)).catch(() => {});
    }
    return true;
  };
  const bypass = { send: nodeSend, onEvent };
  // A program may keep the functions that it finds here: they must not be replaced later.
  const send: Send = function send(message, handle, options, callback): boolean {
    return bypass.send.call(this, message, handle, options, callback);
  };
  process.send = send as NonNullable<typeof process.send>;
  const emit = function (this: unknown, event: string, ...args: unknown[]): boolean {
    return bypass.onEvent(event, args) && Reflect.apply(nodeEmit, this, [event, ...args]);
  };
  // Not enumerable, like the method that it stands before.
  Object.defineProperty(process, 'emit', { value: emit, writable: true, configurable: true });
}

function isInvitation(message: unknown): message is Message {
  const { cmd, invite } = (message ?? {}) as Message;
  return cmd === 'NODE_UKSHM' && invite !== undefined;
}

if (isMainThread) {
  restoreOptions();
  if (process.send !== undefined) waitForInvitation(process.send as Send);
}
delete require.cache[__filename];
