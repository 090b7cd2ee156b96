// Time and CPU of one process from its first byte to its last, measured alike in every version of
// the job that is compared.
import { nowNs } from './control.js';

/** What a meter says at the end. */
export interface Measured {
  readonly bytes: number;
  readonly messages: number;
  readonly firstNs: number;
  readonly lastNs: number;
  readonly cpuSeconds: number;
}

/** Counts bytes and messages; its clock runs from `start()`, or the first `add()`, to `stop()`. */
export class Meter {
  bytes = 0;
  messages = 0;
  #firstNs = 0;
  #cpu: NodeJS.CpuUsage | undefined;

  start(): void {
    if (this.#cpu !== undefined) return;
    this.#cpu = process.cpuUsage();
    this.#firstNs = nowNs();
  }

  add(bytes: number): void {
    this.start();
    this.bytes += bytes;
    this.messages += 1;
  }

  stop(): Measured {
    this.start();
    const lastNs = nowNs();
    const used = process.cpuUsage(this.#cpu);
    return {
      bytes: this.bytes,
      messages: this.messages,
      firstNs: this.#firstNs,
      lastNs,
      cpuSeconds: (used.user + used.system) / 1e6,
    };
  }
}
