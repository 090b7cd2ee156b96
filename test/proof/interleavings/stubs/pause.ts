// In place of src/ring/pause.ts: a pause changes when something is done, never what.
export class Pause {
  wait(): void {}
  gather(): void {}
}
