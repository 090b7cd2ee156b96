// A pause before a reader that found nothing looks again.
//
// Its look takes the cursor's cache line away from the writer, which must fetch it back. Where the
// other side answers what this one sent, a short pause is best: 10 ns make a round trip 5 % faster
// than none, 50 ns 10 % slower. Where messages only come, a longer one behind those that were read
// lets more of them gather, and the line changes hands once for all of these.

const ANSWER_NS = 10;
const IDLE_NS = 50;
const GATHER_NS = 400;
/** Turns of the loop a ns, until that is measured. */
const FIRST_TURNS_PER_NS = 4;
/** Pauses after which the loop is compiled, and is measured once. */
const CALIBRATE_AFTER = 20000;
const MEASURED_PAUSES = 2000;

export class Pause {
  #answerTurns = ANSWER_NS * FIRST_TURNS_PER_NS;
  #idleTurns = IDLE_NS * FIRST_TURNS_PER_NS;
  #gatherTurns = GATHER_NS * FIRST_TURNS_PER_NS;
  #untilCalibration = CALIBRATE_AFTER;

  /** Between two looks. @param answer - whether what is waited for is an answer. */
  wait(answer: boolean, nowMs: () => number): void {
    this.#spin(answer ? this.#answerTurns : this.#idleTurns, nowMs);
  }

  /** Before the first look after something was read. */
  gather(nowMs: () => number): void {
    this.#spin(this.#gatherTurns, nowMs);
  }

  #spin(turns: number, nowMs: () => number): void {
    spinTurns(turns);
    if (this.#untilCalibration > 0 && --this.#untilCalibration === 0) this.#calibrate(nowMs);
  }

  #calibrate(nowMs: () => number): void {
    const turns = IDLE_NS * FIRST_TURNS_PER_NS;
    const start = nowMs();
    for (let i = 0; i < MEASURED_PAUSES; i++) spinTurns(turns);
    const measured = (MEASURED_PAUSES * turns) / ((nowMs() - start) * 1e6);
    // A disturbed measurement may be off; never by more than four times.
    const perNs = Math.min(Math.max(measured, FIRST_TURNS_PER_NS / 4), FIRST_TURNS_PER_NS * 4);
    this.#answerTurns = Math.round(ANSWER_NS * perNs);
    this.#idleTurns = Math.round(IDLE_NS * perNs);
    this.#gatherTurns = Math.round(GATHER_NS * perNs);
  }
}

function spinTurns(turns: number): void {
  for (let i = 0; i < turns; i++);
}
