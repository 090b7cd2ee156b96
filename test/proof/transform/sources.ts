// The sources that are turned, as one TypeScript program: read once, checked by TypeScript's own checker.
// A planted bug is a text edit of a source; it fails when the text to be replaced is not there.
import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import ts from 'typescript';
import { ROOT } from '../../house/root.js';

/** A text edit of one source, as a planted bug makes it. */
export interface Edit {
  /** Relative to the root, such as `src/ring/producer.ts`. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** Folders whose modules are turned. */
const TURNED = ['src/', 'test/proof/interleavings/scenarios/', 'test/unit/', '.cache/tried-'];

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2022.d.ts', 'lib.esnext.disposable.d.ts'],
  types: ['node'],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  strict: true,
  noEmit: true,
  skipLibCheck: true,
};

/** Parsed files, by name and edits: the libraries are the greater part, and each variant needs them. */
const parsed: Map<string, ts.SourceFile> = new Map();

export interface Sources {
  readonly program: ts.Program;
  readonly checker: ts.TypeChecker;
  /** What is turned: source files by their path relative to the root. */
  readonly files: ReadonlyMap<string, ts.SourceFile>;
}

/** A source's path relative to the root. */
export function pathOf(source: ts.SourceFile): string {
  return relative(ROOT, source.fileName);
}

/** Where a node stands, for people. */
export function placeOf(node: ts.Node): string {
  const source = node.getSourceFile();
  const { line } = source.getLineAndCharacterOfPosition(node.getStart(source));
  return `${pathOf(source)}:${line + 1}`;
}

/** Applies those of the edits that concern `path`; each must find its text exactly once. */
export function edited(path: string, text: string, edits: readonly Edit[]): string {
  let result = text;
  for (const { file, from, to } of edits) {
    if (file !== path) continue;
    const pieces = result.split(from);
    if (pieces.length !== 2) {
      throw new Error(
        `the text to be replaced stands ${pieces.length - 1} times in ${path}: ${from}`,
      );
    }
    result = pieces.join(to);
  }
  return result;
}

/**
 * Reads `roots` and all that they import.
 * @param replaced - modules that others take the place of: they are read, but not turned.
 * @param before - the same without the edits, from which what is equal is taken.
 */
export function readSources(
  roots: readonly string[],
  edits: readonly Edit[],
  replaced: (path: string) => boolean,
  before?: Sources,
): Sources {
  const host = ts.createCompilerHost(OPTIONS, true);
  const read = host.getSourceFile;
  host.getSourceFile = (name, version) => {
    const path = relative(ROOT, name);
    const own = edits.filter(({ file }) => file === path);
    const key = own.length === 0 ? name : `${name} ${JSON.stringify(own)}`;
    const known = parsed.get(key);
    if (known !== undefined) return known;
    const source =
      own.length === 0
        ? read.call(host, name, version)
        : ts.createSourceFile(name, edited(path, readFileSync(name, 'utf8'), own), version, true);
    if (source !== undefined) parsed.set(key, source);
    return source;
  };
  const names = roots.map((root) => join(ROOT, root));
  const program = ts.createProgram(names, OPTIONS, host, before?.program);
  const checker = program.getTypeChecker();
  const files = new Map<string, ts.SourceFile>();
  const reach = (source: ts.SourceFile | undefined): void => {
    if (source === undefined || source.isDeclarationFile) return;
    const path = pathOf(source);
    const ours = TURNED.some((folder) => path.startsWith(folder));
    if (!ours || replaced(path) || files.has(path)) return;
    files.set(path, source);
    for (const statement of source.statements) {
      const imports = ts.isImportDeclaration(statement) || ts.isExportDeclaration(statement);
      const module = imports && statement.moduleSpecifier;
      if (!module) continue;
      reach(checker.getSymbolAtLocation(module)?.valueDeclaration?.getSourceFile());
    }
  };
  for (const name of names) reach(program.getSourceFile(name));
  return { program, checker, files };
}
