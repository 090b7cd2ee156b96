// Standard output of a command that answers with text or JSON. A command whose standard output
// carries a file must not touch it: Node would make it non-blocking for whoever shares it.

/** Prints a line, or lines. */
export function print(text: string): void {
  watch();
  process.stdout.write(`${text}\n`);
}

/** Prints a value for programs. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

let watched = false;

/** Whoever reads may stop early, as `head` does: that is no failure. */
function watch(): void {
  if (watched) return;
  watched = true;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit();
  });
}
