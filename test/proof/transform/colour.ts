// Which functions become generators: those that may reach a shared access, a system call that is a
// step, an `await`, or a function of which nothing is known. Decided over the whole program, until
// nothing changes any more.
import ts from 'typescript';
import { isForeignStep, isReplaced } from './modules.js';
import { pathOf, type Sources } from './sources.js';
import { isTypedArrayName, TypedArrays } from './typed-arrays.js';
import { Calls, isUnit, type Targets, type Unit, unitAround } from './units.js';

/** What an expression does by itself, beside what is inside it. */
export type Act =
  | {
      readonly kind: 'load' | 'store';
      readonly array: ts.Expression;
      readonly index: ts.Expression;
    }
  | { readonly kind: 'atomic'; readonly name: string }
  | { readonly kind: 'method'; readonly array: ts.Expression; readonly name: string }
  | { readonly kind: 'copy'; readonly type: string; readonly from: ts.Expression }
  | { readonly kind: 'call'; readonly targets: Targets }
  | { readonly kind: 'foreign'; readonly name: string; readonly callbacks: readonly Unit[] }
  | { readonly kind: 'promise'; readonly targets: Targets }
  | { readonly kind: 'get'; readonly accessors: readonly ts.GetAccessorDeclaration[] }
  | { readonly kind: 'await' };

/** Methods of typed arrays that the build does in steps. */
const COPYING = new Set(['set', 'slice', 'fill']);

/** Methods of arrays, maps and sets that call back at once: the build has them in steps, too. */
const EACH = new Set(['forEach', 'map', 'filter', 'some', 'every', 'find']);

export class Colours {
  readonly arrays: TypedArrays;
  readonly calls: Calls;
  readonly #coloured: Set<Unit>;
  readonly #acts: Map<ts.Node, Act> = new Map();

  /**
   * @param base - of the same sources without edits: then only the sources that are not in it are
   * looked at, and all others keep their colours.
   */
  constructor(sources: Sources, base?: { readonly sources: Sources; readonly colours: Colours }) {
    this.arrays = new TypedArrays(sources.checker);
    this.calls = new Calls(sources, base?.colours.calls);
    this.#coloured = base === undefined ? new Set() : new Set(base.colours.#coloured);
    const known = new Set(base?.sources.files.values());
    const pending: { unit: Unit; act: Act }[] = [];
    for (const source of sources.files.values()) {
      if (known.has(source)) continue;
      const visit = (node: ts.Node): void => {
        const act = this.#actAt(node);
        if (act !== undefined) {
          this.#acts.set(node, act);
          const unit = unitAround(node);
          if (unit !== undefined) pending.push({ unit, act });
        }
        if (isUnit(node) && isAsync(node)) this.#coloured.add(node);
        ts.forEachChild(node, visit);
      };
      visit(source);
    }
    let before = -1;
    while (before !== this.#coloured.size) {
      before = this.#coloured.size;
      for (const { unit, act } of pending) if (this.isStep(act)) this.#coloured.add(unit);
    }
  }

  /** The coloured functions of a source, as text: an edit must not change them. */
  namesIn(source: ts.SourceFile): string {
    const inside = [...this.#coloured].filter((unit) => unit.getSourceFile() === source);
    const nameOf = (unit: Unit): string => unit.name?.getText() ?? '=>';
    return inside
      .sort((a, b) => a.pos - b.pos)
      .map(nameOf)
      .join(' ');
  }

  isColoured(unit: Unit): boolean {
    return this.#coloured.has(unit);
  }

  actAt(node: ts.Node): Act | undefined {
    return this.#acts.get(node);
  }

  /** Whether the act may reach a step. */
  isStep(act: Act): boolean {
    switch (act.kind) {
      case 'call':
      case 'promise':
        return this.mayStep(act.targets);
      case 'foreign':
        return EACH.has(act.name) && act.callbacks.some((unit) => this.isColoured(unit));
      case 'get':
        return act.accessors.some((accessor) => this.isColoured(accessor));
      case 'method':
        return COPYING.has(act.name);
      default:
        return true;
    }
  }

  mayStep(targets: Targets): boolean {
    if (targets.foreign !== undefined) {
      const name = (targets.foreign as { name?: ts.Node }).name?.getText() ?? '';
      return isForeignStep(pathOf(targets.foreign.getSourceFile()), name);
    }
    return targets.unknown || targets.units.some((unit) => this.isColoured(unit));
  }

  /** Whether all that the call may lead to are generators. */
  isSure(targets: Targets): boolean {
    if (targets.unknown || targets.foreign !== undefined) return false;
    return targets.units.every((unit) => this.isColoured(unit));
  }

  #actAt(node: ts.Node): Act | undefined {
    if (ts.isElementAccessExpression(node)) return this.#elementAt(node);
    if (ts.isAwaitExpression(node)) return { kind: 'await' };
    if (ts.isForOfStatement(node) && node.awaitModifier !== undefined) return { kind: 'await' };
    if (ts.isPropertyAccessExpression(node)) {
      const accessors = this.calls.accessorsOf(node);
      return accessors.length > 0 ? { kind: 'get', accessors } : undefined;
    }
    if (ts.isNewExpression(node) && ts.isIdentifier(node.expression)) {
      const from = node.arguments?.[0];
      const type = node.expression.text;
      if (type === 'Promise' && from !== undefined) {
        return { kind: 'promise', targets: this.calls.flowFrom(from) };
      }
      if (from === undefined || node.arguments?.length !== 1 || !isTypedArrayName(type))
        return undefined;
      return this.#isPerhapsShared(from) ? { kind: 'copy', type, from } : undefined;
    }
    if (!ts.isCallExpression(node)) return undefined;
    return this.#callAt(node);
  }

  #callAt(node: ts.CallExpression): Act | undefined {
    const callee = node.expression;
    if (callee.kind === ts.SyntaxKind.SuperKeyword) return undefined;
    if (ts.isPropertyAccessExpression(callee)) {
      const object = callee.expression;
      const name = callee.name.text;
      if (object.getText() === 'Atomics') return { kind: 'atomic', name };
      const from = node.arguments[0];
      if (object.getText() === 'Buffer' && name === 'from' && from !== undefined) {
        return this.#isPerhapsShared(from) ? { kind: 'copy', type: 'Buffer', from } : undefined;
      }
      if (this.arrays.is(object)) {
        if (name === 'subarray' || this.arrays.isPrivate(object)) return undefined;
        return { kind: 'method', array: object, name };
      }
    }
    const targets = this.calls.targetsOf(node);
    const callbacks = node.arguments.flatMap((argument) => this.callbacksIn(argument));
    if (targets.foreign === undefined || callbacks.length === 0) return { kind: 'call', targets };
    const { name } = targets.foreign as { name?: ts.Node };
    // What takes a module's place knows what to do with steps.
    if (isReplaced(pathOf(targets.foreign.getSourceFile()))) return { kind: 'call', targets };
    return { kind: 'foreign', name: name?.getText() ?? '', callbacks };
  }

  /** Functions of ours that an argument hands over. */
  callbacksIn(argument: ts.Expression): readonly Unit[] {
    const named = ts.isIdentifier(argument) || ts.isPropertyAccessExpression(argument);
    if (!isUnit(argument) && !(named && this.calls.isCallable(argument))) return [];
    return this.calls.flowFrom(argument).units;
  }

  #elementAt(node: ts.ElementAccessExpression): Act | undefined {
    if (!this.#isPerhapsShared(node.expression)) return undefined;
    const kind = isAssigned(node) ? 'store' : 'load';
    return { kind, array: node.expression, index: node.argumentExpression };
  }

  #isPerhapsShared(node: ts.Expression): boolean {
    return this.arrays.is(node) && !this.arrays.isPrivate(node);
  }
}

export function isAsync(unit: Unit): boolean {
  const modifiers = ts.canHaveModifiers(unit) ? ts.getModifiers(unit) : undefined;
  return modifiers?.some(({ kind }) => kind === ts.SyntaxKind.AsyncKeyword) ?? false;
}

/** Whether the element is written: by `=`, or by what the build refuses. */
export function isAssigned(node: ts.ElementAccessExpression): boolean {
  const { parent } = node;
  if (ts.isPrefixUnaryExpression(parent) || ts.isPostfixUnaryExpression(parent)) {
    const { operator } = parent;
    return operator === ts.SyntaxKind.PlusPlusToken || operator === ts.SyntaxKind.MinusMinusToken;
  }
  if (!ts.isBinaryExpression(parent) || parent.left !== node) return false;
  const { kind } = parent.operatorToken;
  return kind >= ts.SyntaxKind.FirstAssignment && kind <= ts.SyntaxKind.LastAssignment;
}
