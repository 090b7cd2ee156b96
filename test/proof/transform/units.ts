// Functions, and where a call may lead: to functions that are known, or to a value that only the
// running build knows.
import ts from 'typescript';
import type { Sources } from './sources.js';

/** Whatever has a body that runs when it is called. */
export type Unit =
  | ts.FunctionDeclaration
  | ts.FunctionExpression
  | ts.ArrowFunction
  | ts.MethodDeclaration
  | ts.GetAccessorDeclaration
  | ts.SetAccessorDeclaration
  | ts.ConstructorDeclaration;

export function isUnit(node: ts.Node): node is Unit {
  if (!ts.isFunctionLike(node) || ts.isFunctionTypeNode(node)) return false;
  return 'body' in node && node.body !== undefined;
}

/** The function whose body a node is in; its parameters' defaults count as outside. */
export function unitAround(node: ts.Node): Unit | undefined {
  let child = node;
  for (let parent = node.parent; parent !== undefined; parent = parent.parent) {
    if (isUnit(parent) && parent.body === child) return parent;
    child = parent;
  }
  return undefined;
}

/** Where a call may lead. `unknown`: also to functions that cannot be told from the text. */
export interface Targets {
  readonly units: readonly Unit[];
  readonly unknown: boolean;
  /** Declared outside what is turned: Node, the language, a module that is replaced. */
  readonly foreign: ts.Declaration | undefined;
}

const UNKNOWN: Targets = { units: [], unknown: true, foreign: undefined };

export class Calls {
  readonly #checker: ts.TypeChecker;
  readonly #files: ReadonlySet<ts.SourceFile>;
  /** Functions by the name of the method or property that holds them. */
  readonly #named: Map<string, Targets>;

  /** @param base - of the same sources but for an edit: what has which name is taken from there. */
  constructor(sources: Sources, base?: Calls) {
    this.#checker = sources.checker;
    this.#files = new Set(sources.files.values());
    this.#named = base === undefined ? new Map() : base.#named;
    if (base === undefined) for (const source of this.#files) this.#collect(source);
  }

  /** Where a call or `new` leads. */
  targetsOf(call: ts.CallExpression): Targets {
    const declaration = this.#checker.getResolvedSignature(call)?.declaration;
    if (declaration !== undefined && isUnit(declaration) && this.#isOurs(declaration)) {
      return { units: [declaration], unknown: false, foreign: undefined };
    }
    const callee = call.expression;
    const symbol = this.symbolOf(callee);
    const declared = symbol?.valueDeclaration ?? symbol?.declarations?.[0];
    if (declared === undefined) return UNKNOWN;
    if (!this.#isOurs(declared)) return { units: [], unknown: false, foreign: declared };
    if (ts.isPropertyAccessExpression(callee)) {
      const named = this.named(callee.name.text);
      return named.units.length > 0 || named.unknown ? named : UNKNOWN;
    }
    if (ts.isVariableDeclaration(declared) && declared.initializer !== undefined) {
      return this.flowFrom(declared.initializer);
    }
    return UNKNOWN;
  }

  /** What a read of a property may run: its accessors. */
  accessorsOf(access: ts.PropertyAccessExpression): readonly ts.GetAccessorDeclaration[] {
    const symbol = this.#checker.getSymbolAtLocation(access.name);
    const declared = symbol?.declarations?.find(ts.isGetAccessorDeclaration);
    if (declared !== undefined) return this.#isOurs(declared) ? [declared] : [];
    const signature = symbol?.declarations?.find(ts.isPropertySignature);
    if (signature === undefined || !this.#isOurs(signature)) return [];
    return this.named(`get ${access.name.text}`).units.filter(ts.isGetAccessorDeclaration);
  }

  named(name: string): Targets {
    return this.#named.get(name) ?? { units: [], unknown: false, foreign: undefined };
  }

  symbolOf(node: ts.Expression): ts.Symbol | undefined {
    if (ts.isParenthesizedExpression(node) || ts.isNonNullExpression(node)) {
      return this.symbolOf(node.expression);
    }
    const at = ts.isPropertyAccessExpression(node) ? node.name : node;
    const symbol = this.#checker.getSymbolAtLocation(at);
    const isAlias = symbol !== undefined && (symbol.flags & ts.SymbolFlags.Alias) !== 0;
    return isAlias ? this.#checker.getAliasedSymbol(symbol) : symbol;
  }

  #isOurs(node: ts.Node): boolean {
    return this.#files.has(node.getSourceFile());
  }

  #collect(node: ts.Node): void {
    if (ts.isMethodDeclaration(node) && node.body !== undefined) {
      this.#add(node.name.getText(), { units: [node], unknown: false, foreign: undefined });
    } else if (ts.isGetAccessorDeclaration(node)) {
      const units = [node];
      this.#add(`get ${node.name.getText()}`, { units, unknown: false, foreign: undefined });
    } else if (ts.isPropertyAssignment(node) || ts.isPropertyDeclaration(node)) {
      const { initializer } = node;
      if (initializer !== undefined && this.isCallable(node.name)) {
        this.#add(node.name.getText(), this.flowFrom(initializer));
      }
    } else if (ts.isShorthandPropertyAssignment(node)) {
      if (this.isCallable(node.name)) this.#add(node.name.text, this.flowFrom(node.name));
    } else if (ts.isBinaryExpression(node) && ts.isPropertyAccessExpression(node.left)) {
      const assigns = node.operatorToken.kind === ts.SyntaxKind.EqualsToken;
      if (assigns && this.isCallable(node.left)) {
        this.#add(node.left.name.text, this.flowFrom(node.right));
      }
    }
    ts.forEachChild(node, (child) => this.#collect(child));
  }

  #add(name: string, targets: Targets): void {
    const before = this.named(name);
    this.#named.set(name, {
      units: [...before.units, ...targets.units],
      unknown: before.unknown || targets.unknown,
      foreign: undefined,
    });
  }

  /** Whether a value of this may be called. */
  isCallable(node: ts.Node): boolean {
    const type = this.#checker.getNonNullableType(this.#checker.getTypeAtLocation(node));
    const parts = type.isUnion() ? type.types : [type];
    return parts.some((part) => part.getCallSignatures().length > 0);
  }

  /** Which functions an expression may be. */
  flowFrom(node: ts.Expression): Targets {
    if (isUnit(node)) return { units: [node], unknown: false, foreign: undefined };
    if (ts.isParenthesizedExpression(node) || ts.isAsExpression(node)) {
      return this.flowFrom(node.expression);
    }
    if (ts.isConditionalExpression(node)) {
      const [a, b] = [this.flowFrom(node.whenTrue), this.flowFrom(node.whenFalse)];
      return {
        units: [...a.units, ...b.units],
        unknown: a.unknown || b.unknown,
        foreign: undefined,
      };
    }
    if (node.kind === ts.SyntaxKind.UndefinedKeyword || node.getText() === 'undefined') {
      return { units: [], unknown: false, foreign: undefined };
    }
    const declared = this.symbolOf(node)?.valueDeclaration;
    if (declared === undefined || !this.#isOurs(declared)) {
      return declared === undefined ? UNKNOWN : { units: [], unknown: false, foreign: declared };
    }
    if (isUnit(declared)) return { units: [declared], unknown: false, foreign: undefined };
    const { initializer } = declared as { initializer?: ts.Expression };
    if (initializer === undefined) return UNKNOWN;
    const isConst = (ts.getCombinedNodeFlags(declared) & ts.NodeFlags.Const) !== 0;
    if (ts.isVariableDeclaration(declared) && isConst) return this.flowFrom(initializer);
    const holds = ts.isPropertyDeclaration(declared) && isUnit(initializer);
    return holds ? this.flowFrom(initializer) : UNKNOWN;
  }
}
