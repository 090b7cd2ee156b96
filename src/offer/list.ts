// What stands: offers that this process made, and those that others made to it.
//
// Each process is asked once and answers under its lock, so each one's offers are those of a
// moment: none twice, none half replaced. Several processes have no moment in common.
import { UkshmError } from '../core/errors.js';
import { listOwnOffers } from '../sys/offers.js';
import { ownPid } from '../sys/process.js';
import { Conversation } from './conversation.js';
import { answeringNames, Patience, reachName } from './reach.js';
import { lettersOf } from './rights.js';
import { type Entry, entriesIn, KIND_LIST, KIND_LIST_ALL, LISTED } from './wire.js';

const ANSWER_TIMEOUT_MS = 1000;
/** More than any process may have: one that says more lies. */
const ENTRIES_MAX = 16384;

/** An offer that stands. */
export interface OfferInfo {
  /** Made by this process, or made to it. */
  readonly direction: 'sent' | 'received';
  /** The other process: whom it is offered to, or who offers. */
  readonly pid: number;
  readonly address: number;
  readonly sizeBytes: number;
  readonly grant: string;
  readonly drop: string;
}

/** An offer between two processes of this machine. @internal */
export interface MachineOffer extends Entry {
  readonly sourcePid: number;
}

/**
 * Offers that this process sent and that others sent to it, sorted. Waits at most a second for
 * sources that do not answer (they are stopped), and leaves those out.
 */
export async function listOffers(): Promise<OfferInfo[]> {
  const sent = listOwnOffers().map(
    ({ pid, address, sizeBytes, grant, drop }): OfferInfo => ({
      direction: 'sent',
      pid,
      address,
      sizeBytes,
      grant: lettersOf(grant),
      drop: lettersOf(drop),
    }),
  );
  const received = (await askEveryone(KIND_LIST)).map(
    ({ sourcePid, address, sizeBytes, grant, drop }): OfferInfo => ({
      direction: 'received',
      pid: sourcePid,
      address,
      sizeBytes,
      grant,
      drop,
    }),
  );
  const order = (a: OfferInfo, b: OfferInfo): number => a.pid - b.pid || a.address - b.address;
  return [...sent.sort(order), ...received.sort(order)];
}

/**
 * All offers on this machine that the caller may see: those of processes of the same user, to root
 * all, and those made to this process.
 * @internal
 */
export async function listAllOffers(): Promise<MachineOffer[]> {
  const sourcePid = ownPid();
  const own = listOwnOffers().map((row) => ({
    ...row,
    sourcePid,
    grant: lettersOf(row.grant),
    drop: lettersOf(row.drop),
  }));
  const offers = await askEveryone(KIND_LIST_ALL);
  return [...own, ...offers].sort((a, b) => a.sourcePid - b.sourcePid || a.address - b.address);
}

/** What is offered to this process now. @internal */
export function listReceived(signal?: AbortSignal): Promise<MachineOffer[]> {
  return askEveryone(KIND_LIST, signal);
}

async function askEveryone(kind: number, signal?: AbortSignal): Promise<MachineOffer[]> {
  const lists = await Promise.all(answeringNames().map((name) => askOne(name, kind, signal)));
  return lists.flat();
}

async function askOne(name: string, kind: number, signal?: AbortSignal): Promise<MachineOffer[]> {
  const found = reachName(name);
  if (found === undefined) return [];
  const patience = new Patience(`the list of process ${found.pid}`, ANSWER_TIMEOUT_MS, signal);
  const conversation = new Conversation(found.pid, found.line, patience);
  const offers: MachineOffer[] = [];
  try {
    let packet = await conversation.ask(kind, 0);
    while (packet?.answer.status === LISTED) {
      const { answer, bytes } = packet;
      const entries = entriesIn(bytes, answer.unitCount) ?? [];
      for (const entry of entries) offers.push({ ...entry, sourcePid: found.pid });
      if (entries.length === 0 || answer.grant === 1 || offers.length > ENTRIES_MAX) break;
      packet = await conversation.next();
    }
  } catch (error) {
    // Stopped, or none of ours: it lists nothing.
    if (!(error instanceof UkshmError)) throw error;
  } finally {
    conversation.close();
  }
  return offers;
}
