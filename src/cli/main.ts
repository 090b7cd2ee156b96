#!/usr/bin/env node
// The command line. One file a command; this one knows their names and how all of them end.
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addBuild } from './build.js';
import { addDoctor } from './doctor.js';
import { explain } from './failure.js';
import { addLs } from './ls.js';
import { addOffers } from './offers.js';
import { addRelay } from './relay.js';

function programOf(): Command {
  const { version } = JSON.parse(
    readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
  ) as { version: string };
  const program = new Command('ukshm')
    .description('Shared memory for Node.js: processes hand bytes on instead of copying them.')
    .version(version)
    .option('--verbose', 'show stack traces with errors')
    .helpCommand(false)
    .showSuggestionAfterError()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'ukshm: ')),
    })
    .exitOverride();
  addRelay(program);
  addDoctor(program);
  addLs(program);
  addOffers(program);
  addBuild(program);
  // Options of a command's own are looked for anywhere, `--verbose` included.
  for (const command of program.commands) command.option('--verbose', 'show stack traces');
  return program;
}

const verbose = process.argv.includes('--verbose');
try {
  await programOf().parseAsync();
} catch (error) {
  process.exitCode = explain(error, verbose);
}
