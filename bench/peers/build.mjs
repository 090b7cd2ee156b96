// Builds the programs with which ukshm is compared into bench/peers/.build, as far as this machine
// can, and says in a line each what became of it. Nothing is built twice: each keeps a stamp of
// its sources. `node bench/peers/build.mjs [c|zeromq|http|nats|python|iceoryx2|aeron …]`; bench/main.ts calls it.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const peers = dirname(fileURLToPath(import.meta.url));
export const output = join(peers, '.build');

/** Each step is a program and its arguments; `env` replaces what the user's own setting may say. */
const recipes = {
  c: {
    needs: 'cc',
    steps: ['word', 'ring', 'socket', 'give'].map((name) => [
      'cc',
      ...['-std=c11', '-O2', '-Wall', '-Wextra', '-o', join(output, 'c', name)],
      join(peers, 'c', `${name}.c`),
    ]),
  },
  zeromq: {
    needs: 'npm',
    copies: ['package.json', '.npmrc'],
    steps: [['npm', 'install', '--silent', '--prefix', join(output, 'zeromq')]],
  },
  http: {
    needs: 'npm',
    copies: ['package.json', '.npmrc'],
    steps: [['npm', 'install', '--silent', '--prefix', join(output, 'http')]],
  },
  nats: {
    needs: 'npm and go',
    copies: ['package.json', '.npmrc'],
    steps: [
      ['npm', 'install', '--silent', '--prefix', join(output, 'nats')],
      [
        'env',
        ...[`GOBIN=${join(output, 'nats', 'bin')}`, 'go', 'install'],
        'github.com/nats-io/nats-server/v2@v2.15.2',
      ],
    ],
  },
  python: {
    needs: 'python3 with pip',
    steps: [
      ['python3', '-m', 'pip', 'install', '--quiet', '--target', join(output, 'python'), 'pyzmq'],
    ],
  },
  iceoryx2: {
    needs: 'cargo',
    steps: [
      [
        'cargo',
        ...['build', '--release', '--quiet', '--locked'],
        ...['--manifest-path', join(peers, 'iceoryx2', 'Cargo.toml')],
        ...['--target-dir', join(output, 'iceoryx2')],
      ],
    ],
  },
  aeron: {
    needs: 'mvn',
    steps: [
      [
        'mvn',
        ...['--quiet', '--batch-mode', '--file', join(peers, 'aeron', 'pom.xml')],
        ...[`-Dpeer.output=${join(output, 'aeron')}`, 'compile'],
      ],
    ],
  },
};

export const peerNames = Object.keys(recipes);

function stampOf(name) {
  const hash = createHash('sha256');
  const files = readdirSync(join(peers, name), { recursive: true, withFileTypes: true });
  const paths = files.filter((f) => f.isFile()).map((f) => join(f.parentPath ?? f.path, f.name));
  for (const path of paths.sort()) hash.update(path).update(readFileSync(path));
  return hash.digest('hex');
}

function readStamp(name) {
  try {
    return readFileSync(join(output, `${name}.stamp`), 'utf8');
  } catch {
    return '';
  }
}

/**
 * Builds one peer. Returns `undefined` when it is there, or the reason why it is not.
 * A compile of iceoryx2 takes a minute or two; what takes ten is stuck.
 */
export function buildPeer(name, say = console.error) {
  const { needs, steps, copies = [] } = recipes[name];
  const stamp = stampOf(name);
  if (readStamp(name) === stamp) return undefined;
  const start = performance.now();
  rmSync(join(output, `${name}.stamp`), { force: true });
  mkdirSync(join(output, name), { recursive: true });
  for (const file of copies) cpSync(join(peers, name, file), join(output, name, file));
  for (const [program, ...args] of steps) {
    const options = { encoding: 'utf8', timeout: 600_000, cwd: join(output, name) };
    const { status, error, stderr, stdout } = spawnSync(program, args, options);
    if (status === 0) continue;
    const why = error?.code === 'ENOENT' ? `there is no ${needs}` : firstLine(stderr + stdout);
    const reason = why ?? error?.message ?? `${program} ended with status ${status}`;
    say(`${name}: skipped, because ${reason}`);
    return reason;
  }
  writeFileSync(join(output, `${name}.stamp`), stamp);
  say(`${name}: built in ${((performance.now() - start) / 1e3).toFixed(1)} s`);
  return undefined;
}

function firstLine(text) {
  const lines = text.split('\n').map((line) => line.trim());
  return lines.find((line) => /error/i.test(line)) ?? lines.find((line) => line !== '');
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const names = process.argv.length > 2 ? process.argv.slice(2) : peerNames;
  const unknown = names.filter((name) => !(name in recipes));
  if (unknown.length > 0) {
    console.error(`no such peer: ${unknown.join(', ')}; there are ${peerNames.join(', ')}`);
    process.exit(64);
  }
  for (const name of names) buildPeer(name);
}
