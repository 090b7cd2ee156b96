// Which modules are replaced in the build, by what, and which of their functions are steps: the
// scheduler decides when they run. Everything else that they export answers at once.

import type { Edit } from './sources.js';

/** Numbers that are smaller in the build, so that a short schedule comes to where they matter. */
export const SMALLER: readonly Edit[] = [
  {
    file: 'src/memory/outbox-layout.ts',
    from: 'RELEASE_SLOTS = 4096',
    to: 'RELEASE_SLOTS = 4',
  },
];

export interface Replacement {
  /** Below test/proof/interleavings/stubs/. */
  readonly by: string;
  readonly steps: readonly string[];
}

/** By their path relative to the root. */
export const REPLACED: Readonly<Record<string, Replacement>> = {
  'src/sys/clock.ts': { by: 'clock', steps: [] },
  'src/sys/platform.ts': { by: 'platform', steps: [] },
  'src/sys/poller.ts': { by: 'poller', steps: [] },
  'src/sys/socket.ts': { by: 'socket', steps: ['send', 'receive'] },
  'src/sys/memory.ts': { by: 'memory', steps: ['closeDescriptor'] },
  'src/sys/process.ts': { by: 'process', steps: [] },
  'src/memory/mapping.ts': { by: 'mapping', steps: [] },
  'src/memory/fresh-bytes.ts': { by: 'left-out', steps: [] },
  'src/ring/pause.ts': { by: 'pause', steps: [] },
  'src/channel/duplex.ts': { by: 'left-out', steps: [] },
  'src/channel/meeting/listener.ts': { by: 'meeting', steps: [] },
  'src/channel/meeting/connector.ts': { by: 'meeting', steps: [] },
  'src/channel/meeting/shared-region.ts': { by: 'meeting', steps: [] },
};

/** The harness: a scenario's calls into it may be steps, whatever they are. */
export function isHarness(path: string): boolean {
  return /^test\/proof\/interleavings\/(explore|stubs)\//.test(path);
}

/** Modules that the build takes as they are. */
export function isReplaced(path: string): boolean {
  return path in REPLACED || isHarness(path);
}

/** Whether a function of a replaced module, or of Node or the language, is a step. */
export function isForeignStep(path: string, name: string): boolean {
  // Listeners of a signal run while it is aborted, and may have steps.
  if (name === 'abort') return true;
  return isHarness(path) || (REPLACED[path]?.steps.includes(name) ?? false);
}
