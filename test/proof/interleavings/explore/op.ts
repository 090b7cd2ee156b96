// What a party is about to do, or did: one step. Two steps are dependent when their order can matter.

/** A step. Announced before it is done; `value` is filled in when it is. */
export interface Op {
  readonly kind: string;
  /** The memory's number, or -1: the step is a system call, or a party's death. */
  readonly memory: number;
  /** Bytes of the memory. */
  readonly from: number;
  readonly to: number;
  readonly writes: boolean;
  /** Parties whose socket, waiting or life the step is about, as bits. */
  readonly touches: number;
  /** Whose death it is; -1: none. */
  readonly kills: number;
  /** Where it stands in the sources. */
  readonly site: number;
  /** Whether it can be done now. */
  readonly isEnabled: (() => boolean) | undefined;
  value: unknown;
}

/** Whether the order of two steps of different parties can matter. */
export function dependent(a: Op, partyA: number, b: Op, partyB: number): boolean {
  if (a.kills === partyB || b.kills === partyA) return true;
  if (a.memory >= 0) {
    return a.memory === b.memory && (a.writes || b.writes) && a.from < b.to && b.from < a.to;
  }
  return b.memory < 0 && (a.touches & b.touches) !== 0;
}

/** An access of `[from, to)` of a memory. */
export function access(
  kind: string,
  memory: number,
  from: number,
  to: number,
  writes: boolean,
  site: number,
): Op {
  return {
    kind,
    memory,
    from,
    to,
    writes,
    touches: 0,
    kills: -1,
    site,
    isEnabled: undefined,
    value: undefined,
  };
}

/** A system call that is about the sockets, or the waiting, of the parties in `touches`. */
export function call(
  kind: string,
  touches: number,
  site: number = -1,
  isEnabled?: () => boolean,
  kills: number = -1,
): Op {
  return {
    kind,
    memory: -1,
    from: 0,
    to: 0,
    writes: true,
    touches,
    kills,
    site,
    isEnabled,
    value: undefined,
  };
}
