// `ukshm ls`: who listens on this machine, who is connected, and how much memory is in use.
import { existsSync, readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { ListenerInfo } from '../channel/meeting/directory.js';
import { print, printJson } from './print.js';
import { formatMemory, table } from './text.js';

const PASSWD = '/etc/passwd';

export function addLs(program: Command): void {
  program
    .command('ls')
    .description('list listeners, their owners and peers, and the memory in use')
    .option('--json', 'report in JSON')
    .action(async ({ json }: { json?: true }) => {
      // Loads the addon, which the other commands may not need.
      const { listListeners } = await import('../channel/meeting/directory.js');
      const listeners = await listListeners();
      if (json) printJson({ listeners });
      else print(report(listeners));
    });
}

function report(listeners: readonly ListenerInfo[]): string {
  if (listeners.length === 0) return 'Nobody listens on this machine.';
  const users = userNames();
  const rows = listeners.flatMap((listener) => {
    const { name, pid, uid, channels, note } = listener;
    const owner = [name, pid > 0 ? String(pid) : '?', users.get(uid) ?? String(uid)];
    const rest = channels.map(({ peerPid, bytesInUse, sharedBytes }) => [
      String(peerPid),
      formatMemory(bytesInUse),
      formatMemory(sharedBytes),
    ]);
    if (rest.length === 0) rest.push([note ?? 'nobody', '', '']);
    return rest.map((cells, index) => [...(index === 0 ? owner : ['', '', '']), ...cells]);
  });
  const heading = ['NAME', 'OWNER', 'USER', 'PEER', 'IN USE', 'SHARED'];
  return table([heading, ...rows], ['left', 'right', 'left', 'right', 'right', 'right']);
}

/** Names by user id, where the machine keeps them in its file. */
function userNames(): Map<number, string> {
  const names = new Map<number, string>();
  if (!existsSync(PASSWD)) return names;
  for (const line of readFileSync(PASSWD, 'utf8').split('\n')) {
    const [name, , uid] = line.split(':');
    if (uid !== undefined && !names.has(Number(uid))) names.set(Number(uid), name);
  }
  return names;
}
