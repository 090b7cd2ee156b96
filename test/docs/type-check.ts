// Type-checks the code blocks as a user's project would: against the package's own type declarations.
import ts from 'typescript';

const OPTIONS: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  moduleDetection: ts.ModuleDetectionKind.Force,
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2022.d.ts', 'lib.esnext.disposable.d.ts'],
  types: ['node'],
  strict: true,
  // Plain JavaScript cannot declare a parameter's type.
  noImplicitAny: false,
  allowJs: true,
  checkJs: true,
  skipLibCheck: true,
  noEmit: true,
};

/**
 * @param paths - absolute, .mjs or .mts, inside the package, which they import by its name
 * @returns the errors by path
 */
export function typeErrors(paths: readonly string[]): Map<string, string[]> {
  const program = ts.createProgram([...paths], OPTIONS);
  const errors = new Map<string, string[]>();
  for (const { file, start, messageText } of ts.getPreEmitDiagnostics(program)) {
    const path = file?.fileName ?? '';
    const line = file ? file.getLineAndCharacterOfPosition(start ?? 0).line + 1 : 0;
    const text = `line ${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
    errors.set(path, [...(errors.get(path) ?? []), text]);
  }
  return errors;
}

/** TypeScript to JavaScript that Node 20 runs (`using` included). */
export function toJavaScript(code: string): string {
  return ts.transpileModule(code, { compilerOptions: OPTIONS, fileName: 'block.mts' }).outputText;
}
