// A pause of some 50 ns before a spinning reader looks again.
//
// The reader's look takes the cursor's cache line away from the writer, which must fetch it back:
// with a pause both get faster (500 → 360 ns a round trip; 100 ns make it worse).

const PAUSE_NS = 50;
const FIRST_TURNS = 50;
/** Pauses after which the loop is compiled, and is measured once. */
const CALIBRATE_AFTER = 20000;
const MEASURED_PAUSES = 2000;

export class Pause {
  #turns = FIRST_TURNS;
  #untilCalibration = CALIBRATE_AFTER;

  wait(nowMs: () => number): void {
    spinTurns(this.#turns);
    if (this.#untilCalibration > 0 && --this.#untilCalibration === 0) this.#calibrate(nowMs);
  }

  #calibrate(nowMs: () => number): void {
    const start = nowMs();
    for (let i = 0; i < MEASURED_PAUSES; i++) spinTurns(FIRST_TURNS);
    const turnNs = ((nowMs() - start) * 1e6) / (MEASURED_PAUSES * FIRST_TURNS);
    const turns = Math.round(PAUSE_NS / Math.max(turnNs, 0.01));
    // A disturbed measurement may be off; never by more than this.
    this.#turns = Math.min(Math.max(turns, FIRST_TURNS / 2), FIRST_TURNS * 4);
  }
}

function spinTurns(turns: number): void {
  for (let i = 0; i < turns; i++);
}
