// What `npm run proof` is made of: sections, each in a folder of its own.

/** What was asked for. */
export interface ProofOptions {
  /** Some minutes for all sections together, instead of hours. */
  readonly quick: boolean;
  readonly firstSeed: number;
  /** A part of the names of what is to be tried; '' for all. */
  readonly only: string;
  /** How long whatever takes as long as it is given may take; each section has its own usual value. */
  readonly seconds: number | undefined;
}

export interface Section {
  /** By which it is asked for on the command line. */
  readonly name: string;
  readonly title: string;
  /**
   * Tries all of it, and prints its part of the report: figures, and for a failure how to have it again.
   * @returns whether all is well.
   */
  readonly run: (options: ProofOptions) => Promise<boolean>;
}
