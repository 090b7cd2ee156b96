// Which expressions are typed arrays, and which of those are private for certain: made here with a
// length, in a `#field` or a `const` that holds nothing else. Of all others the running build decides:
// shared is what lies in a memory of the scenario.
import ts from 'typescript';

const NAMES: ReadonlySet<string> = new Set([
  ...['Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array'],
  ...['Uint32Array', 'Float32Array', 'Float64Array', 'BigInt64Array', 'BigUint64Array', 'Buffer'],
]);

export class TypedArrays {
  readonly #checker: ts.TypeChecker;
  readonly #private: Map<ts.Symbol, boolean> = new Map();

  constructor(checker: ts.TypeChecker) {
    this.#checker = checker;
  }

  /** Whether a value of this expression may be a typed array. */
  is(node: ts.Node): boolean {
    return this.#isType(this.#checker.getTypeAtLocation(node));
  }

  #isType(type: ts.Type): boolean {
    if (type.isUnion()) return type.types.some((part) => this.#isType(part));
    return NAMES.has(type.symbol?.name ?? '');
  }

  /** Whether the array can be no shared memory, whatever runs. */
  isPrivate(node: ts.Expression): boolean {
    if (ts.isParenthesizedExpression(node) || ts.isAsExpression(node)) {
      return this.isPrivate(node.expression);
    }
    const fresh = this.#isFresh(node);
    if (fresh) return true;
    const symbol = this.#checker.getSymbolAtLocation(node);
    const declaration = symbol?.valueDeclaration;
    if (symbol === undefined || declaration === undefined) return false;
    const known = this.#private.get(symbol);
    if (known !== undefined) return known;
    this.#private.set(symbol, false);
    const answer = this.#declaredPrivate(declaration, symbol);
    this.#private.set(symbol, answer);
    return answer;
  }

  #declaredPrivate(declaration: ts.Declaration, symbol: ts.Symbol): boolean {
    if (ts.isVariableDeclaration(declaration)) {
      const isConst = (ts.getCombinedNodeFlags(declaration) & ts.NodeFlags.Const) !== 0;
      return (
        isConst && declaration.initializer !== undefined && this.isPrivate(declaration.initializer)
      );
    }
    if (!ts.isPropertyDeclaration(declaration) || !ts.isPrivateIdentifier(declaration.name))
      return false;
    const values: ts.Expression[] = [];
    if (declaration.initializer !== undefined) values.push(declaration.initializer);
    const visit = (node: ts.Node): void => {
      if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.EqualsToken) {
        if (this.#checker.getSymbolAtLocation(node.left) === symbol) values.push(node.right);
      }
      ts.forEachChild(node, visit);
    };
    visit(declaration.parent);
    return values.length > 0 && values.every((value) => this.isPrivate(value));
  }

  /** `new T(length)` or `new T([…])`, perhaps filled. */
  #isFresh(node: ts.Expression): boolean {
    if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
      return node.expression.name.text === 'fill' && this.#isFresh(node.expression.expression);
    }
    if (!ts.isNewExpression(node) || !ts.isIdentifier(node.expression)) return false;
    if (!NAMES.has(node.expression.text)) return false;
    const argument = node.arguments?.[0];
    if (argument === undefined) return true;
    const type = this.#checker.getTypeAtLocation(argument);
    return (type.flags & ts.TypeFlags.NumberLike) !== 0 || ts.isArrayLiteralExpression(argument);
  }
}

/** Names of the constructors of typed arrays. */
export function isTypedArrayName(name: string): boolean {
  return NAMES.has(name);
}
