// `ukshm offers`: which pages are offered on this machine, by whom, to whom, and with which rights.
import type { Command } from 'commander';
import type { MachineOffer } from '../offer/list.js';
import { print, printJson } from './print.js';
import { formatMemory, table } from './text.js';

export function addOffers(program: Command): void {
  program
    .command('offers')
    .description(
      'list pages that are offered and not yet claimed: those of the same user, to root all',
    )
    .option('--json', 'report in JSON')
    .action(async ({ json }: { json?: true }) => {
      // Loads the addon, which the other commands may not need.
      const { listAllOffers } = await import('../offer/list.js');
      const offers = await listAllOffers();
      if (json) printJson({ offers: offers.map(told) });
      else print(report(offers));
    });
}

function told({ sourcePid, pid, address, sizeBytes, grant, drop }: MachineOffer): object {
  return { sourcePid, receiverPid: pid, address, sizeBytes, grant, drop };
}

function report(offers: readonly MachineOffer[]): string {
  if (offers.length === 0) return 'Nothing that you may see is offered on this machine.';
  const rows = offers.map(({ sourcePid, pid, address, sizeBytes, grant, drop }) => [
    String(sourcePid),
    String(pid),
    `0x${address.toString(16)}`,
    formatMemory(sizeBytes),
    grant,
    drop === '' ? 'nothing' : drop,
  ]);
  const heading = ['SOURCE', 'RECEIVER', 'ADDRESS', 'SIZE', 'GRANTS', 'DROPS'];
  return table([heading, ...rows], ['right', 'right', 'left', 'right', 'left', 'left']);
}
