// The rules of the house that no linter knows: who may import whom, on resolved paths, and which words
// belong to one folder. Works on the syntax tree, so comments and strings do not count.
// Used by layers.test.ts, on src/ and on snippets that break each rule.
import { posix } from 'node:path';
import ts from 'typescript';

/** Imports run from a higher floor to a lower one; folders of one floor do not know each other. */
const FLOORS: Readonly<Record<string, number>> = {
  abi: 0,
  core: 0,
  sys: 1,
  memory: 2,
  ring: 3,
  channel: 4,
  offer: 4,
  kernel: 4,
  packet: 4,
  patterns: 5,
  firewall: 5,
  index: 6,
  relay: 7,
  // The house lists it beside relay/; but a command calls the job that it starts, so it stands above.
  cli: 8,
};

/** These import nothing from outside themselves, not even from Node. */
const SELF_CONTAINED = ['abi', 'core'];
/** Only these import packages of others; everything below is Node and ourselves. */
const PACKAGE_USERS = ['cli', 'relay'];
const LINES_MAX = 400;

/** Words, and the folders that may use them. `a.b` means the member `b` of `a`. */
const RESERVED: readonly { words: readonly string[]; folders: readonly string[]; why: string }[] = [
  { words: ['Atomics'], folders: ['ring'], why: 'shared words are touched in ring/ alone' },
  {
    words: ['createRequire', 'require', 'process.dlopen'],
    folders: ['sys'],
    why: 'the addon is loaded in sys/ alone',
  },
  {
    words: [
      ...['setTimeout', 'setInterval', 'setImmediate', 'performance', 'process.hrtime'],
      ...['Date.now', 'Math.random', 'randomBytes', 'randomInt', 'randomUUID', 'getRandomValues'],
    ],
    folders: ['sys', 'cli', 'relay'],
    why: 'time and randomness come through sys/, so that a scheduler can take their place',
  },
];
const CLOCK_MODULES = ['node:timers', 'node:timers/promises', 'node:perf_hooks'];

interface Import {
  readonly specifier: string;
  readonly line: number;
  /** Erased by the compiler: counts for the layers, but makes no cycle. */
  readonly typeOnly: boolean;
}

/**
 * Checks source files against the rules.
 *
 * @param files - text by path, such as `src/ring/ring.ts`
 * @returns one line a violation; empty: all is well
 */
export function violationsIn(files: ReadonlyMap<string, string>): string[] {
  const violations: string[] = [];
  const graph = new Map<string, string[]>();
  for (const [path, text] of files) {
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
    const report = (line: number, what: string): void => {
      violations.push(`${path}:${line}: ${what}`);
    };
    if (source.getLineStarts().length > LINES_MAX + 1) report(1, `longer than ${LINES_MAX} lines`);
    checkWords(source, folderOf(path), report);
    graph.set(path, checkImports(path, importsOf(source), files, report));
  }
  return [...violations, ...cyclesIn(graph)];
}

/** The folder below src/; `index` for the face, src/index.ts. */
function folderOf(path: string): string {
  const [, folder] = path.split('/');
  return folder === 'index.ts' ? 'index' : folder;
}

function lineOf(node: ts.Node): number {
  const source = node.getSourceFile();
  return source.getLineAndCharacterOfPosition(node.getStart()).line + 1;
}

/** All modules that a file names: import, export from, import(), and import types. */
function importsOf(source: ts.SourceFile): Import[] {
  const found: Import[] = [];
  const visit = (node: ts.Node): void => {
    let specifier: ts.Node | undefined;
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      specifier = node.moduleSpecifier;
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      specifier = node.argument.literal;
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      specifier = node.arguments[0];
    }
    if (specifier) {
      const text = ts.isStringLiteralLike(specifier) ? specifier.text : specifier.getText();
      found.push({ specifier: text, line: lineOf(node), typeOnly: isErased(node) });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function isErased(node: ts.Node): boolean {
  if (ts.isImportTypeNode(node)) return true;
  if (ts.isExportDeclaration(node)) return node.isTypeOnly;
  if (!ts.isImportDeclaration(node) || node.importClause === undefined) return false;
  const { phaseModifier, namedBindings, name } = node.importClause;
  if (phaseModifier === ts.SyntaxKind.TypeKeyword) return true;
  if (name !== undefined || namedBindings === undefined || ts.isNamespaceImport(namedBindings)) {
    return false;
  }
  return namedBindings.elements.every((one) => one.isTypeOnly);
}

/** @returns the files of src/ that it imports, as far as they are imported when it runs */
function checkImports(
  path: string,
  imports: readonly Import[],
  files: ReadonlyMap<string, string>,
  report: (line: number, what: string) => void,
): string[] {
  const folder = folderOf(path);
  const floor = FLOORS[folder];
  if (floor === undefined) report(1, `${folder}/ has no floor in the house`);
  const targets: string[] = [];
  for (const { specifier, line, typeOnly } of imports) {
    if (!specifier.startsWith('.')) {
      checkForeign(folder, specifier, (what) => report(line, what));
      continue;
    }
    const target = posix
      .normalize(posix.join(posix.dirname(path), specifier))
      .replace(/\.js$/, '.ts');
    if (!files.has(target)) {
      report(line, `imports ${specifier}, which is no file of src/`);
      continue;
    }
    if (!typeOnly) targets.push(target);
    const other = folderOf(target);
    if (other === folder) continue;
    if (SELF_CONTAINED.includes(folder)) report(line, `${folder}/ imports nothing, not ${target}`);
    else if (FLOORS[other] === floor) report(line, `${folder}/ and ${other}/ share a floor`);
    else if (FLOORS[other] > floor) report(line, `imports upward, ${folder}/ from ${other}/`);
  }
  return targets;
}

function checkForeign(folder: string, specifier: string, report: (what: string) => void): void {
  const builtin = specifier.startsWith('node:');
  if (SELF_CONTAINED.includes(folder)) report(`${folder}/ imports nothing, not ${specifier}`);
  else if (!builtin && !PACKAGE_USERS.includes(folder)) {
    report(`only ${PACKAGE_USERS.join('/, ')}/ use packages, not ${folder}/: ${specifier}`);
  }
  const timeKeepers = RESERVED[2].folders;
  if (CLOCK_MODULES.includes(specifier) && !timeKeepers.includes(folder)) {
    report(`imports ${specifier}: ${RESERVED[2].why}`);
  }
}

function checkWords(
  source: ts.SourceFile,
  folder: string,
  report: (line: number, what: string) => void,
): void {
  const visit = (node: ts.Node): void => {
    if (node.kind === ts.SyntaxKind.AnyKeyword) report(lineOf(node), 'any');
    if (ts.isEnumDeclaration(node)) report(lineOf(node), 'enum');
    if (ts.isModuleDeclaration(node)) report(lineOf(node), 'namespace');
    if (ts.isIdentifier(node)) checkWord(node, folder, (what) => report(lineOf(node), what));
    ts.forEachChild(node, visit);
  };
  visit(source);
}

function checkWord(node: ts.Identifier, folder: string, report: (what: string) => void): void {
  for (const { words, folders, why } of RESERVED) {
    if (folders.includes(folder)) continue;
    for (const word of words) {
      const [first, second] = word.split('.');
      const used = second === undefined ? isGlobal(node, first) : isMember(node, first, second);
      if (used) report(`${word}: ${why}`);
    }
  }
}

/** Whether this is the name itself, not a property of that name of something else. */
function isGlobal(node: ts.Identifier, name: string): boolean {
  if (node.text !== name) return false;
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) {
    return /^(globalThis|global|crypto|webcrypto|timers)$/.test(parent.expression.getText());
  }
  const declares =
    ts.isPropertyAssignment(parent) ||
    ts.isMethodDeclaration(parent) ||
    ts.isPropertySignature(parent);
  return !(declares && parent.name === node);
}

/** `object.member`, `globalThis.object.member`, `object['member']` or `const { member } = object`. */
function isMember(node: ts.Identifier, object: string, member: string): boolean {
  if (node.text !== object) return false;
  let { parent } = node;
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) parent = parent.parent;
  if (ts.isPropertyAccessExpression(parent)) return parent.name.text === member;
  if (ts.isElementAccessExpression(parent)) {
    const key = parent.argumentExpression;
    return !ts.isStringLiteralLike(key) || key.text === member;
  }
  return (
    ts.isVariableDeclaration(parent) &&
    ts.isObjectBindingPattern(parent.name) &&
    parent.name.elements.some((one) => (one.propertyName ?? one.name).getText() === member)
  );
}

/** Each cycle once, from its file that was met first. */
function cyclesIn(graph: ReadonlyMap<string, string[]>): string[] {
  const cycles: string[] = [];
  const done = new Set<string>();
  const walk = (path: string, trail: readonly string[]): void => {
    const start = trail.indexOf(path);
    if (start >= 0) {
      cycles.push(`import cycle: ${[...trail.slice(start), path].join(' -> ')}`);
      return;
    }
    if (done.has(path)) return;
    for (const target of graph.get(path) ?? []) walk(target, [...trail, path]);
    done.add(path);
  };
  for (const path of graph.keys()) walk(path, []);
  return cycles;
}
