// Builds a variant: the product's sources, with or without planted bugs, turned into generators, in
// .cache/proof/<what it is made of>/. Made once for each state of the sources.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';
import { ROOT, readBelow } from '../../house/root.js';
import { Colours } from './colour.js';
import { Emitter } from './emit.js';
import { isReplaced, REPLACED, SMALLER } from './modules.js';
import { type Edit, pathOf, readSources, type Sources } from './sources.js';

/** dist/test/proof/interleavings/. */
const HERE = fileURLToPath(new URL('../interleavings/', import.meta.url));
const CACHE = join(ROOT, '.cache/proof');
const RUNTIME = pathToFileURL(join(HERE, 'explore/runtime.js')).href;
const HEAD =
  `import * as $ from '${RUNTIME}'; const { Promise, AbortController, AbortSignal } = $; ` +
  'const $S = $.addSites(SITES); ';

export interface Variant {
  /** Modules by the path of their source. */
  load(path: string): Promise<Record<string, unknown>>;
}

export interface BuildOptions {
  /** Sources, with which the build begins: scenarios or unit tests. */
  readonly roots: readonly string[];
  readonly edits?: readonly Edit[];
  /** For unit tests: what foreign code calls back runs without a scheduler. */
  readonly syncCallbacks?: boolean;
}

/** Builds a variant, or finds it built. @throws Refusal; Error where an edit finds nothing. */
export function buildVariant(options: BuildOptions): Variant {
  const folder = join(CACHE, commonKey(), keyOf(options));
  if (!existsSync(folder)) {
    // Builds of other states of the sources are of no use any more.
    for (const name of existsSync(CACHE) ? readdirSync(CACHE) : []) {
      if (name !== commonKey()) rmSync(join(CACHE, name), { recursive: true, force: true });
    }
    write(folder, turn(options));
  }
  return {
    load: (path) => import(pathToFileURL(join(folder, path.replace(/\.ts$/, '.js'))).href),
  };
}

interface Turned {
  readonly sources: Sources;
  readonly colours: Colours;
  readonly emitter: Emitter;
  /** By the paths that they are to have. */
  readonly files: ReadonlyMap<string, string>;
}

/** Turned sources without planted bugs, by their roots. */
const bases: Map<string, Turned> = new Map();

/** The turned sources, by the paths that they are to have. */
export function turn(options: BuildOptions): ReadonlyMap<string, string> {
  const { roots, edits = [], syncCallbacks = false } = options;
  const key = JSON.stringify([roots, syncCallbacks]);
  const base = bases.get(key) ?? turnAll(roots, syncCallbacks);
  bases.set(key, base);
  return edits.length === 0 ? base.files : turnEdited(base, roots, edits);
}

function turnAll(roots: readonly string[], syncCallbacks: boolean): Turned {
  const sources = readSources(roots, syncCallbacks ? [] : SMALLER, isReplaced);
  const colours = new Colours(sources);
  const emitter = new Emitter(colours, syncCallbacks);
  const files = new Map<string, string>();
  for (const [path, source] of sources.files) {
    files.set(path.replace(/\.ts$/, '.js'), textOf(emitter, source));
  }
  for (const source of sources.program.getSourceFiles()) {
    const path = pathOf(source);
    if (!isReplaced(path)) continue;
    const by = REPLACED[path]?.by;
    const taken =
      by !== undefined ? `stubs/${by}` : path.replace(/^test\/proof\/interleavings\/|\.ts$/g, '');
    const url = pathToFileURL(join(HERE, `${taken}.js`)).href;
    files.set(path.replace(/\.ts$/, '.js'), `export * from '${url}';\n`);
  }
  return { sources, colours, emitter, files };
}

/** The same with edits: what is not edited is as it was. */
function turnEdited(
  base: Turned,
  roots: readonly string[],
  edits: readonly Edit[],
): ReadonlyMap<string, string> {
  const sources = readSources(roots, [...SMALLER, ...edits], isReplaced, base.sources);
  const colours = new Colours(sources, base);
  const emitter = new Emitter(colours, false);
  const files = new Map(base.files);
  for (const { file } of edits) {
    const source = sources.files.get(file);
    const before = base.sources.files.get(file);
    if (source === undefined || before === undefined)
      throw new Error(`${file} is not in this build`);
    if (colours.namesIn(source) !== base.colours.namesIn(before)) {
      throw new Error(`the edit of ${file} changes which functions have steps`);
    }
    files.set(file.replace(/\.ts$/, '.js'), textOf(emitter, source));
  }
  return files;
}

function textOf(emitter: Emitter, source: ts.SourceFile): string {
  const { text, sites } = emitter.file(source);
  const head = HEAD.replace('SITES', () => JSON.stringify(sites));
  return toJavaScript(head + text, pathOf(source));
}

function toJavaScript(text: string, path: string): string {
  const { outputText, diagnostics = [] } = ts.transpileModule(text, {
    fileName: path,
    reportDiagnostics: true,
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ES2022,
      verbatimModuleSyntax: true,
    },
  });
  const [first] = diagnostics;
  if (first === undefined) {
    return outputText.replace(
      /from '(node:test)'/g,
      `from '${pathToFileURL(join(HERE, 'stubs/node-test.js')).href}'`,
    );
  }
  const around = text.slice((first.start ?? 0) - 60, (first.start ?? 0) + 60);
  throw new Error(`${path}: ${ts.flattenDiagnosticMessageText(first.messageText, ' ')}: ${around}`);
}

function write(folder: string, files: ReadonlyMap<string, string>): void {
  const fresh = `${folder}.${process.pid}`;
  for (const [path, text] of files) {
    mkdirSync(dirname(join(fresh, path)), { recursive: true });
    writeFileSync(join(fresh, path), text);
  }
  try {
    renameSync(fresh, folder);
  } catch (error) {
    // Another process has built the same meanwhile.
    rmSync(fresh, { recursive: true });
    if (!existsSync(folder)) throw error;
  }
}

let common: string | undefined;

/** All that every build depends on. */
function commonKey(): string {
  if (common !== undefined) return common;
  const hash = createHash('sha256').update(`${ts.version} ${HERE}`);
  const texts = [
    ...readBelow('src', '.ts'),
    ...readBelow('test/proof/interleavings/scenarios', '.ts'),
    ...readBelow('test/unit', '.ts'),
    ...readBelow('dist/test/proof/transform', '.js'),
  ];
  for (const [path, text] of texts) hash.update(`${path}\0${text}\0`);
  common = hash.digest('hex').slice(0, 16);
  return common;
}

function keyOf(options: BuildOptions): string {
  return createHash('sha256').update(JSON.stringify(options)).digest('hex').slice(0, 16);
}
