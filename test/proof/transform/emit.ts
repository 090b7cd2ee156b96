// Writes a source anew: coloured functions as generators, and each act that may be a step as a call of
// the runtime (explore/runtime.ts, here `$`). What cannot be turned is refused, with file and line.
//
//     words[i]                    (yield* $.load(words, i, site))
//     words[i] = x                (yield* $.store(words, i, x, site))
//     f(x), f coloured            (yield* f(x)); where f may be either: (yield* $.run(f(x)))
//     await x                     (yield $.waitFor(x))
//     (a) => x, coloured          (function* (a) { return x; }).bind(this)
//     get idle(), coloured        *get$idle(), read by (yield* o.get$idle())
//     for await (const a of b)    a loop over (yield* $.nextOf(iterator))
import ts from 'typescript';
import { type Act, type Colours, isAsync } from './colour.js';
import { placeOf } from './sources.js';
import { isUnit, type Unit, unitAround } from './units.js';

/** Where a step stands in the product's own source. */
export interface Site {
  readonly place: string;
  /** The function that it stands in; '' where that has no name. */
  readonly inside: string;
  readonly text: string;
}

export class Refusal extends Error {
  constructor(node: ts.Node, why: string) {
    super(`${placeOf(node)}: ${why}: ${node.getText().split('\n')[0]}`);
  }
}

/** Foreign functions that may be given generators: the runtime has its own of them. */
const AWARE = new Set(['then', 'catch', 'finally', 'addEventListener', 'removeEventListener']);

export class Emitter {
  #sites: Site[] = [];
  readonly #colours: Colours;
  readonly #syncCallbacks: boolean;
  #loops = 0;

  /** @param syncCallbacks - callbacks given to foreign code may run without a scheduler: unit tests. */
  constructor(colours: Colours, syncCallbacks: boolean) {
    this.#colours = colours;
    this.#syncCallbacks = syncCallbacks;
  }

  /** A whole source as it is to be, and its steps by their numbers. */
  file(source: ts.SourceFile): { readonly text: string; readonly sites: readonly Site[] } {
    this.#sites = [];
    const text = this.emit(source);
    return { text, sites: this.#sites };
  }

  /** The text of a node as it is to be. */
  emit(node: ts.Node): string {
    if (isUnit(node)) return this.#unit(node);
    const act = this.#colours.actAt(node);
    if (act !== undefined) {
      if (this.#colours.isStep(act)) return this.#step(node as ts.Expression, act);
      if (act.kind === 'method') return this.#own(node as ts.CallExpression);
      if (act.kind === 'foreign') return this.#foreign(node as ts.CallExpression, act.callbacks);
    }
    if (ts.isBinaryExpression(node) && ts.isElementAccessExpression(node.left)) {
      const store = this.#colours.actAt(node.left);
      if (store?.kind === 'store') return this.#store(node, store);
    }
    if (ts.isForOfStatement(node) || ts.isSpreadElement(node)) this.#checkIterated(node.expression);
    if (ts.isYieldExpression(node)) return this.#yield(node);
    return this.#verbatim(node);
  }

  /** The node's own text around that of its children. */
  #verbatim(node: ts.Node): string {
    const source = node.getSourceFile();
    let at = node.getStart(source);
    let text = '';
    ts.forEachChild(node, (child) => {
      const start = child.getStart(source);
      text += source.text.slice(at, start) + this.emit(child);
      at = child.end;
    });
    return text + source.text.slice(at, node.end);
  }

  #step(node: ts.Expression, act: Act): string {
    const unit = unitAround(node);
    if (unit === undefined) throw new Refusal(node, 'a step outside any function');
    const building = ts.isConstructorDeclaration(unit);
    if (!building && !this.#colours.isColoured(unit))
      throw new Refusal(node, 'its colour is unknown');
    if (building && act.kind !== 'call' && !this.#syncCallbacks) {
      throw new Refusal(node, 'a step in a constructor');
    }
    if (ts.isForOfStatement(node)) return this.#forAwait(node);
    if (goesOn(node)) throw new Refusal(node, 'a step within an optional chain');
    switch (act.kind) {
      case 'load': {
        const { array, index } = act;
        return this.#do(node, 'load', [array, index]);
      }
      case 'atomic': {
        const name = { load: 'atomicLoad', store: 'atomicStore' }[act.name];
        if (name === undefined)
          throw new Refusal(node, 'an atomic operation other than load and store');
        return this.#do(node, name, (node as ts.CallExpression).arguments);
      }
      case 'method': {
        const name = { set: 'copyIn', slice: 'slice', fill: 'fill' }[act.name] as string;
        return this.#do(node, name, [act.array, ...(node as ts.CallExpression).arguments]);
      }
      case 'copy':
        return `(yield* $.copy(${this.#site(node)}, ${act.type}, ${this.emit(act.from)}))`;
      case 'get':
        return this.#get(node as ts.PropertyAccessExpression);
      case 'await':
        return `(yield $.waitFor(${this.emit((node as ts.AwaitExpression).expression)}))`;
      case 'promise':
        return `(yield* $.newPromise(${this.#list((node as ts.NewExpression).arguments ?? [])}))`;
      case 'foreign': {
        const { expression, arguments: given } = node as ts.CallExpression;
        const { expression: object, name } = expression as ts.PropertyAccessExpression;
        return `(yield* $.each(${this.emit(object)}, '${name.text}', ${this.#list(given)}))`;
      }
      case 'call': {
        const call = this.#verbatim(node);
        if (building) return `$.now(${call}, '${placeOf(node)}')`;
        const sure = this.#colours.isSure(act.targets) && !isOptional(node);
        return sure ? `(yield* ${call})` : `(yield* $.run(${call}))`;
      }
      default:
        throw new Refusal(node, 'an assignment that is not a plain one');
    }
  }

  /** A call of the runtime with these arguments and the site at the end. */
  #do(node: ts.Node, name: string, given: readonly ts.Expression[]): string {
    const call = `$.${name}(${this.#site(node)}, ${this.#list(given)})`;
    const unit = unitAround(node);
    const building = unit !== undefined && ts.isConstructorDeclaration(unit);
    return building ? `$.now(${call}, '${placeOf(node)}')` : `(yield* ${call})`;
  }

  #list(given: readonly ts.Expression[]): string {
    return given.map((argument) => this.emit(argument)).join(', ');
  }

  #site(node: ts.Node): string {
    const text = node.getText().replace(/\s+/g, ' ');
    const inside = unitAround(node)?.name?.getText() ?? '';
    const site = { place: placeOf(node), inside, text: text.slice(0, 60) };
    return `$S + ${this.#sites.push(site) - 1}`;
  }

  #store(node: ts.BinaryExpression, act: Act & { kind: 'load' | 'store' }): string {
    if (node.operatorToken.kind !== ts.SyntaxKind.EqualsToken) {
      throw new Refusal(node, 'compound assignment to what may be shared');
    }
    const unit = unitAround(node);
    const building = unit !== undefined && ts.isConstructorDeclaration(unit);
    if (unit === undefined || (building && !this.#syncCallbacks)) {
      throw new Refusal(node, 'a step in a constructor');
    }
    return this.#do(node, 'store', [act.array, act.index, node.right]);
  }

  #get(node: ts.PropertyAccessExpression): string {
    if (node.questionDotToken !== undefined)
      throw new Refusal(node, 'a step within an optional chain');
    const object = this.emit(node.expression);
    const { name } = node;
    if (ts.isPrivateIdentifier(name)) return `(yield* ${object}.#get$${name.text.slice(1)}())`;
    return `(yield* $.property(${object}, '${name.text}'))`;
  }

  /** A method of a typed array that the build does not do in steps: for private memory alone. */
  #own(node: ts.CallExpression): string {
    const { expression, name } = node.expression as ts.PropertyAccessExpression;
    const object = `$.own(${this.emit(expression)}, '${placeOf(node)}')`;
    return `${object}.${name.text}(${this.#list(node.arguments)})`;
  }

  #foreign(node: ts.CallExpression, callbacks: readonly Unit[]): string {
    const name = ts.isPropertyAccessExpression(node.expression) ? node.expression.name.text : '';
    const coloured = callbacks.filter((unit) => this.#colours.isColoured(unit));
    if (coloured.length === 0 || AWARE.has(name)) return this.#verbatim(node);
    if (!this.#syncCallbacks) throw new Refusal(node, 'steps in a callback given to foreign code');
    const given = node.arguments.map((argument) => {
      const units = this.#colours.callbacksIn(argument);
      const steps = units.some((unit) => this.#colours.isColoured(unit));
      return steps ? `$.sync(${this.emit(argument)})` : this.emit(argument);
    });
    return `${this.emit(node.expression)}(${given.join(', ')})`;
  }

  #checkIterated(node: ts.Expression): void {
    const { arrays } = this.#colours;
    if (!arrays.is(node) || arrays.isPrivate(node) || this.#syncCallbacks) return;
    throw new Refusal(node, 'iteration over what may be shared');
  }

  #yield(node: ts.YieldExpression): string {
    const unit = unitAround(node);
    if (unit === undefined || !isAsync(unit)) throw new Refusal(node, 'a generator of its own');
    const value = node.expression === undefined ? 'undefined' : this.emit(node.expression);
    return node.asteriskToken === undefined
      ? `(yield $.emit(${value}))`
      : `(yield* $.emitAll(${value}))`;
  }

  #forAwait(node: ts.ForOfStatement): string {
    const n = this.#loops++;
    const [variable] = (node.initializer as ts.VariableDeclarationList).declarations;
    const name = variable?.name.getText() ?? '';
    const { statement } = node;
    // One line, so that lines stay where they are. `return` of the iterator behind a way out of the body.
    return (
      `{ const $i${n} = (yield* $.iteratorOf(${this.emit(node.expression)})); let $b${n} = false; try { ` +
      `for (;;) { $b${n} = false; const $r${n} = (yield $.waitFor((yield* $.run($i${n}.next())))); ` +
      `if ($r${n}.done) break; $b${n} = true; const ${name} = $r${n}.value; ${this.emit(statement)} } } ` +
      `finally { if ($b${n}) yield $.waitFor((yield* $.run($i${n}.return?.()))); } }`
    );
  }

  #unit(unit: Unit): string {
    if (!this.#colours.isColoured(unit) || ts.isConstructorDeclaration(unit)) {
      if (
        unit.kind !== ts.SyntaxKind.Constructor &&
        'asteriskToken' in unit &&
        unit.asteriskToken
      ) {
        throw new Refusal(unit, 'a generator of its own');
      }
      return this.#verbatim(unit);
    }
    if (ts.isSetAccessorDeclaration(unit)) throw new Refusal(unit, 'a step in a setter');
    for (const { initializer } of unit.parameters) if (initializer) this.#checkDefault(initializer);
    const parameters = unit.parameters.map((parameter) => this.#verbatim(parameter)).join(', ');
    const body = this.#body(unit);
    if (ts.isArrowFunction(unit)) return `((function* (${parameters}) ${body}).bind(this))`;
    const modifiers = (ts.getModifiers(unit) ?? [])
      .filter(({ kind }) => kind !== ts.SyntaxKind.AsyncKeyword)
      .map((modifier) => `${modifier.getText()} `)
      .join('');
    const name = unit.name?.getText() ?? '';
    if (ts.isGetAccessorDeclaration(unit)) {
      const renamed = name.startsWith('#') ? `#get$${name.slice(1)}` : `get$${name}`;
      return `${modifiers}*${renamed}() ${body}`;
    }
    if (ts.isMethodDeclaration(unit)) return `${modifiers}*${name}(${parameters}) ${body}`;
    return `${modifiers}function* ${name}(${parameters}) ${body}`;
  }

  #checkDefault(initializer: ts.Expression): void {
    const visit = (node: ts.Node): void => {
      const act = this.#colours.actAt(node);
      if (act !== undefined && this.#colours.isStep(act)) {
        throw new Refusal(node, 'a step in the default of a parameter');
      }
      if (!isUnit(node)) ts.forEachChild(node, visit);
    };
    visit(initializer);
  }

  #body(unit: Exclude<Unit, ts.ConstructorDeclaration>): string {
    const { body } = unit;
    if (body === undefined) throw new Refusal(unit, 'no body');
    const block = ts.isBlock(body) ? this.emit(body) : `{ return ${this.emit(body)}; }`;
    if (!isAsync(unit)) return block;
    const inner = `(function* () ${block}).call(this)`;
    if ('asteriskToken' in unit && unit.asteriskToken)
      return `{ return $.asyncGenerator(${inner}); }`;
    return `{ return yield* $.spawn(${inner}); }`;
  }
}

function isOptional(node: ts.Node): boolean {
  return (node.flags & ts.NodeFlags.OptionalChain) !== 0;
}

/** Whether an optional chain goes on behind this node. */
function goesOn(node: ts.Node): boolean {
  const { parent } = node;
  if (!isOptional(node)) return false;
  const chained = ts.isPropertyAccessExpression(parent) || ts.isCallExpression(parent);
  if (!chained || parent.expression !== node) return false;
  return (parent.flags & ts.NodeFlags.OptionalChain) !== 0;
}
