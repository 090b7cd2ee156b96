// The code blocks of README.md and docs/: what each one is, and what must be true of it.
// The scheme is described in CONTRIBUTING.md, "Documents".

/** What a block must do. `text` is shown, and nothing else. */
export type BlockKind = 'js' | 'ts' | 'sh' | 'console' | 'c' | 'json' | 'python' | 'text';

export interface Block {
  readonly kind: BlockKind;
  /** From `file=NAME`: kept under that name for the blocks below it, and not run by itself. */
  readonly file: string | undefined;
  readonly code: string;
  /** Of the opening fence, from 1. */
  readonly line: number;
}

const KINDS: Readonly<Record<string, BlockKind>> = {
  js: 'js',
  mjs: 'js',
  ts: 'ts',
  sh: 'sh',
  console: 'console',
  c: 'c',
  json: 'json',
  python: 'python',
  text: 'text',
};

const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n]*)\n([\s\S]*?)^ {0,3}\2[ \t]*$/gm;

/**
 * Finds the fenced blocks of a Markdown text.
 *
 * @throws Error when a block has no language, or one that no test can try
 */
export function blocksIn(markdown: string): Block[] {
  return [...markdown.matchAll(FENCE)].map((match) => {
    const [, indent, , info, body] = match;
    const line = markdown.slice(0, match.index).split('\n').length;
    const [language = '', ...words] = info.trim().split(/\s+/);
    const kind = KINDS[language];
    if (kind === undefined) {
      const known = Object.keys(KINDS).join(', ');
      throw new Error(`line ${line}: a block of ${language || 'no language'}; known: ${known}`);
    }
    const file = words.find((word) => word.startsWith('file='))?.slice('file='.length);
    const stray = words.find((word) => !word.startsWith('file='));
    if (stray !== undefined) throw new Error(`line ${line}: what does "${stray}" mean?`);
    if (file !== undefined && !/^[\w-]+\.(mjs|mts|py)$/.test(file)) {
      throw new Error(
        `line ${line}: file=${file} must be a plain name ending in .mjs, .mts or .py`,
      );
    }
    const code = body.replaceAll(new RegExp(`^${indent}`, 'gm'), '');
    return { kind, file, code, line };
  });
}

/** A `console` block: what is typed, and what is printed. */
export interface Session {
  readonly script: string;
  readonly expected: string;
}

/** Lines that start with `$ ` are typed; the others are printed. */
export function sessionOf(code: string): Session {
  const lines = code.trimEnd().split('\n');
  const typed = lines.filter((line) => line.startsWith('$ ')).map((line) => line.slice(2));
  const printed = lines.filter((line) => !line.startsWith('$ '));
  return { script: typed.join('\n'), expected: printed.join('\n') };
}

/** Whether `actual` is `expected`, in which `…` stands for any text, and outer space is ignored. */
export function matchesOutput(actual: string, expected: string): boolean {
  const literal = expected.trim().replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  return new RegExp(`^${literal.replaceAll('…', '[^]*')}$`).test(actual.trim());
}
