// Runs in a forked child before anything of its program: makes itself invisible, and waits for the
// parent to invite. Only then is the rest loaded, so a child that sends and receives nothing large
// pays a millisecond. CommonJS, because `--require` leaves the way the program is loaded as it is.
type Send = (this: unknown, ...args: unknown[]) => boolean;
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
  const bypass = { send: nodeSend };
  // A program may keep the function it finds here: it must not be replaced later.
  process.send = function (this: unknown, ...args: unknown[]): boolean {
    return Reflect.apply(bypass.send, this, args);
  };
  const invitations: Message[] = [];
  const onInternal = (message: Message | null): void => {
    if (message?.cmd !== 'NODE_UKSHM' || message.invite === undefined) return;
    if (invitations.push(message) > 1) return;
    import('./child.js').then(
      ({ begin }) => {
        process.removeListener('internalMessage', onInternal);
        begin(bypass, invitations);
      },
      // Without the addon everything goes Node's own way.
      () => {},
    );
  };
  process.on('internalMessage', onInternal);
}

if (isMainThread) {
  restoreOptions();
  if (process.send !== undefined) waitForInvitation(process.send as Send);
}
delete require.cache[__filename];
