/**
 * Who calls whom in the sources of the server, and which error codes are made where: read out of the program by the compiler, nothing is
 * run. A node of the graph is a function, method, or anything that holds one; a function that is written inside another belongs to it
 * when it has no name of its own.
 *
 * An edge is any mention, called or not, so that callbacks count where they are handed over. What is behind an interface is every class
 * and object literal that fits it. What an error meets on its way out (`catch`) is kept with the edge.
 *
 * It does not see: errors that are kept and thrown later, functions that are kept in a Map or an array, and what libraries throw.
 */
import { join } from 'node:path';
import ts from 'typescript';
import { ROOT } from '../../scripts/workspaces.ts';

const ENTRY = 'apps/server/src/main.ts';
const SERVED = /^(packages|apps\/server)\//;
/** Of tests, and of what the server puts nothing on. */
const NOT_SERVED =
  /\.test\.ts$|\/testing(\.ts$|\/)|conformance|-child\.ts$|test-world|\/memory-[\w-]+\.ts$|^packages\/client\/|\/fake-/;

/** Codes, or kinds of them, that do not get past a place; `all`: none does. */
export interface Filter {
  readonly all: boolean;
  readonly codes: ReadonlySet<string>;
  readonly kinds: ReadonlySet<string>;
}

export interface Mention {
  readonly to: Unit;
  readonly filters: readonly Filter[];
}

/** One node of the graph. */
export interface Unit {
  /** Path of the file without `packages/` and `/src`, `#`, and what it is called there. */
  readonly name: string;
  /** Codes of the errors that are made here. */
  readonly codes: readonly { readonly code: string; readonly filters: readonly Filter[] }[];
  readonly mentions: readonly Mention[];
}

export interface CallGraph {
  /** What a route runs for a request, by its operationId. */
  readonly handlers: ReadonlyMap<string, Unit>;
  /** What runs for requests besides. */
  readonly hooks: readonly Unit[];
  /** What runs by itself, of what was asked for. */
  readonly others: readonly Unit[];
  readonly kindOf: (code: string) => string | undefined;
}

/** @param others names of methods that no request leads to, and that are wanted all the same */
export function readCallGraph(others: readonly RegExp[]): CallGraph {
  return new Reader().read(others);
}

class Reader {
  readonly #program: ts.Program;
  readonly #checker: ts.TypeChecker;
  readonly #files: readonly ts.SourceFile[];
  readonly #served: ReadonlySet<ts.SourceFile>;
  readonly #kinds: ReadonlyMap<string, string>;
  readonly #implementations = new Map<ts.Node, Set<ts.Node>>();
  readonly #units = new Map<ts.Node, Unit>();

  constructor() {
    const config = ts.getParsedCommandLineOfConfigFile(
      join(ROOT, 'tsconfig.json'),
      {},
      {
        ...ts.sys,
        onUnRecoverableConfigFileDiagnostic: ({ messageText }) => {
          throw new Error(ts.flattenDiagnosticMessageText(messageText, '\n'));
        },
      },
    )!;
    this.#program = ts.createProgram([join(ROOT, ENTRY)], config.options);
    this.#checker = this.#program.getTypeChecker();
    this.#files = this.#program.getSourceFiles().filter((file) => {
      const path = pathOf(file);
      return SERVED.test(path) && !path.includes('node_modules') && !NOT_SERVED.test(path);
    });
    this.#served = new Set(this.#files);
    this.#kinds = readKinds(this.#files.find((file) => pathOf(file) === 'packages/common/src/errors.ts')!);
  }

  read(wanted: readonly RegExp[]): CallGraph {
    this.#findImplementations();
    const handlers = new Map<string, Unit>();
    const hooks: Unit[] = [];
    const others: Unit[] = [];
    for (const file of this.#files) {
      const isPlugin = pathOf(file).startsWith('packages/api/src/plugins/');
      visit(file, (node) => {
        if (ts.isMethodDeclaration(node) && wanted.some((name) => name.test(nameOf(node))))
          others.push(this.#unit(node));
        if (!isPlugin) return;
        if (ts.isObjectLiteralExpression(node)) {
          for (const id of this.#operationIds(node)) handlers.set(id, this.#unit(handlerOf(node)));
        } else if (ts.isCallExpression(node) && /^app\.addHook$/.test(node.expression.getText())) {
          hooks.push(this.#unit(node.arguments[1]!));
        }
      });
    }
    return { handlers, hooks, others, kindOf: (code) => this.#kinds.get(code) };
  }

  /** Of the options of a route; none when they are something else. */
  #operationIds(options: ts.ObjectLiteralExpression): readonly string[] {
    const schema = propertyOf(options, 'schema');
    if (schema === undefined || !ts.isObjectLiteralExpression(schema)) return [];
    const id = propertyOf(schema, 'operationId');
    return id === undefined ? [] : this.#textsOf(id);
  }

  /** What a text may be: of a template with variables, all that they may hold. */
  #textsOf(node: ts.Expression): readonly string[] {
    if (!ts.isTemplateExpression(node)) return this.#literalsOf(node);
    let texts = [node.head.text];
    for (const { expression, literal } of node.templateSpans) {
      const values = this.#literalsOf(expression);
      texts = texts.flatMap((text) => values.map((value) => text + value + literal.text));
    }
    return texts;
  }

  #literalsOf(node: ts.Expression): string[] {
    return partsOf(this.#checker.getTypeAtLocation(node)).flatMap((type) =>
      type.isStringLiteral() ? [type.value] : [],
    );
  }

  // --- What is behind a member of a type

  #implement(member: ts.Node, by: ts.Node): void {
    if (member === by) return;
    const known = this.#implementations.get(member) ?? new Set();
    this.#implementations.set(member, known.add(by));
  }

  #findImplementations(): void {
    const classes: ts.ClassLikeDeclaration[] = [];
    const interfaces: ts.InterfaceDeclaration[] = [];
    for (const file of this.#files) {
      visit(file, (node) => {
        if (ts.isClassLike(node) && node.name !== undefined) classes.push(node);
        else if (ts.isInterfaceDeclaration(node)) interfaces.push(node);
        else if (ts.isObjectLiteralExpression(node)) this.#findInLiteral(node);
        else if (ts.isNewExpression(node) || ts.isCallExpression(node)) this.#findInArguments(node);
        else if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.EqualsToken)
          this.#findInAssignment(node);
      });
    }
    for (const one of classes) {
      const instance = this.#checker.getTypeAtLocation(one.name!);
      const types = [
        ...interfaces.map(({ name }) => this.#checker.getTypeAtLocation(name)),
        ...(instance.getBaseTypes() ?? []),
      ];
      for (const type of types) {
        const members = type.getProperties();
        if (members.length === 0 || !this.#checker.isTypeAssignableTo(instance, type)) continue;
        for (const { name, declarations = [] } of members) {
          const own = this.#checker.getPropertyOfType(instance, name)?.declarations ?? [];
          for (const declaration of declarations) for (const by of own) this.#implement(declaration, by);
        }
      }
    }
  }

  #findInLiteral(node: ts.ObjectLiteralExpression): void {
    const wanted = this.#checker.getContextualType(node);
    if (wanted === undefined) return;
    for (const property of node.properties) {
      if (property.name === undefined) continue;
      for (const type of partsOf(wanted)) {
        const member = this.#checker.getPropertyOfType(type, property.name.getText());
        for (const declaration of member?.declarations ?? []) this.#implement(declaration, property);
      }
    }
  }

  /** A parameter of a constructor, or of a function inside of another, is whatever is given for it anywhere. */
  #findInArguments(node: ts.NewExpression | ts.CallExpression): void {
    const declaration = this.#checker.getResolvedSignature(node)?.declaration;
    if (declaration === undefined || !('parameters' in declaration)) return;
    const isLocal = ts.isFunctionDeclaration(declaration) && !ts.isSourceFile(declaration.parent);
    if (!isLocal && !ts.isConstructorDeclaration(declaration)) return;
    for (const [i, argument] of (node.arguments ?? []).entries()) {
      const parameter = declaration.parameters[i];
      if (parameter === undefined || !ts.isParameter(parameter) || !this.#isCode(parameter)) continue;
      if (ts.isArrowFunction(argument) || ts.isFunctionExpression(argument))
        this.#implement(parameter, argument);
      else for (const by of this.#declarations(argument)) this.#implement(parameter, by);
    }
  }

  /** `this.#f = f` */
  #findInAssignment({ left, right }: ts.BinaryExpression): void {
    if (!ts.isPropertyAccessExpression(left)) return;
    const values = ts.isBinaryExpression(right) ? [right.left, right.right] : [right];
    for (const member of this.#declarations(left)) {
      if (!this.#isCode(member)) continue;
      for (const value of values) for (const by of this.#declarations(value)) this.#implement(member, by);
    }
  }

  #declarations(node: ts.Node): readonly ts.Node[] {
    return this.#meant(this.#checker.getSymbolAtLocation(node))?.declarations ?? [];
  }

  /** Whether it is a function, or holds one. Other values were made elsewhere: to look at one runs nothing. */
  #isCode(node: ts.Node): boolean {
    if (ts.isFunctionLike(node) || ts.isClassLike(node)) return true;
    return partsOf(this.#checker.getTypeAtLocation(node)).some(
      (type) => type.getCallSignatures().length + type.getConstructSignatures().length > 0,
    );
  }

  /** What an import stands for. */
  #meant(symbol: ts.Symbol | undefined): ts.Symbol | undefined {
    const isAlias = symbol !== undefined && (symbol.flags & ts.SymbolFlags.Alias) !== 0;
    return isAlias ? this.#checker.getAliasedSymbol(symbol) : symbol;
  }

  // --- Nodes and edges

  #targets(symbol: ts.Symbol | undefined): readonly ts.Node[] {
    const found = new Set<ts.Node>();
    const add = (node: ts.Node): void => {
      if (found.has(node)) return;
      found.add(node);
      for (const by of this.#implementations.get(node) ?? []) add(by);
    };
    (this.#meant(symbol)?.declarations ?? []).forEach(add);
    return [...found].filter((node) => this.#served.has(node.getSourceFile()) && this.#isCode(node));
  }

  #unit(node: ts.Node): Unit {
    const known = this.#units.get(node);
    if (known !== undefined) return known;
    const codes: { code: string; filters: readonly Filter[] }[] = [];
    const mentions: Mention[] = [];
    const unit: Unit = { name: nameOf(node), codes, mentions };
    this.#units.set(node, unit);
    const make = (code: string, at: ts.Node): void =>
      void codes.push({ code, filters: this.#filters(at, node) });
    const mention = (symbol: ts.Symbol | undefined, at: ts.Node): void => {
      for (const to of this.#targets(symbol)) {
        if (to !== node) mentions.push({ to: this.#unit(to), filters: this.#filters(at, node) });
      }
    };
    const scan = (at: ts.Node): void => {
      if (ts.isTypeNode(at) || hasOwnUnit(at, node)) return;
      if (ts.isNewExpression(at) && at.expression.getText() === 'PandoError')
        for (const code of this.#codesOf(at.arguments![0]!)) make(code, at);
      else if (ts.isStringLiteral(at) && this.#isCodeArgument(at)) make(at.text, at);
      else if (ts.isCallExpression(at) && /\.throwIfAborted$/.test(at.expression.getText()))
        make('cancelled', at);
      else if (ts.isShorthandPropertyAssignment(at))
        mention(this.#checker.getShorthandAssignmentValueSymbol(at), at);
      else if (isMention(at)) mention(this.#checker.getSymbolAtLocation(at), at);
      else if (ts.isElementAccessExpression(at) && ts.isCallExpression(at.parent))
        for (const type of partsOf(this.#checker.getTypeAtLocation(at)))
          for (const { declaration } of type.getCallSignatures())
            mention((declaration as { symbol?: ts.Symbol } | undefined)?.symbol, at);
      if (!ts.isShorthandPropertyAssignment(at)) ts.forEachChild(at, scan);
    };
    if (ts.isShorthandPropertyAssignment(node)) scan(node);
    // `const { open } = context`: whatever the property is.
    else if (ts.isBindingElement(node) && ts.isObjectBindingPattern(node.parent))
      mention(
        this.#checker.getPropertyOfType(
          this.#checker.getTypeAtLocation(node.parent),
          (node.propertyName ?? node.name).getText(),
        ),
        node,
      );
    else if (!ts.isParameter(node)) ts.forEachChild(node, scan);
    return unit;
  }

  /** What the first argument of a PandoError may be; nothing where it may be any code: then it comes from elsewhere. */
  #codesOf(argument: ts.Expression): readonly string[] {
    const codes = this.#literalsOf(argument);
    return codes.length < this.#kinds.size ? codes : [];
  }

  /** `fromIoError(error, …, 'store-failed')`: it is made by the function that is called. */
  #isCodeArgument(text: ts.StringLiteral): boolean {
    if (!this.#kinds.has(text.text) || !ts.isCallExpression(text.parent)) return false;
    if (text.parent.expression.getText() === 'isPandoError') return false;
    const wanted = this.#checker.getContextualType(text);
    return wanted !== undefined && partsOf(wanted).length >= this.#kinds.size;
  }

  /** Of all that is around `at` within `top`. */
  #filters(at: ts.Node, top: ts.Node): readonly Filter[] {
    const filters: Filter[] = [];
    for (let inner = at; inner !== top; inner = inner.parent) {
      const { parent } = inner;
      if (ts.isTryStatement(parent) && parent.tryBlock === inner && parent.catchClause !== undefined)
        filters.push(filterOf(parent.catchClause.block, parent.catchClause.variableDeclaration?.name));
      else if (ts.isPropertyAccessExpression(parent) && parent.name.text === 'catch') {
        const [handler] = ts.isCallExpression(parent.parent) ? parent.parent.arguments : [];
        if (handler !== undefined) filters.push(this.#filterOfHandler(handler));
      }
    }
    return filters;
  }

  #filterOfHandler(handler: ts.Expression): Filter {
    if (ts.isArrowFunction(handler) || ts.isFunctionExpression(handler))
      return filterOf(handler.body, handler.parameters[0]?.name);
    const [signature] = this.#checker.getTypeAtLocation(handler).getCallSignatures();
    const returned = signature === undefined ? '' : this.#checker.typeToString(signature.getReturnType());
    return { all: !returned.includes('never'), codes: new Set(), kinds: new Set() };
  }
}

/**
 * What a block that catches errors keeps to itself: what an `if` asks for by code or kind, and does not throw again; all, where nothing is thrown, and
 * the error not put aside for later.
 */
function filterOf(block: ts.Node, caught: ts.BindingName | undefined): Filter {
  const codes = new Set<string>();
  const kinds = new Set<string>();
  const seen = { isThrown: false, isAnyKept: false };
  visit(block, (node) => {
    if (isThrow(node) || isAssigned(node, caught?.getText())) seen.isThrown = true;
    if (ts.isCallExpression(node) && node.expression.getText() === 'isPandoError') {
      const code = node.arguments[1];
      if (!isKept(node, false)) return;
      if (code === undefined) seen.isAnyKept = true;
      else if (ts.isStringLiteral(code)) codes.add(code.text);
    } else if (ts.isBinaryExpression(node) && isKept(node, isUnequal(node))) {
      const field = node.left.getText().split('.').at(-1);
      if (node.operatorToken.kind === ts.SyntaxKind.InstanceOfKeyword) {
        if (node.right.getText() === 'PandoError') seen.isAnyKept = true;
      } else if (ts.isStringLiteral(node.right)) {
        if (field === 'code') codes.add(node.right.text);
        if (field === 'kind') kinds.add(node.right.text);
      }
    }
  });
  return { all: !seen.isThrown || seen.isAnyKept, codes, kinds };
}

function isUnequal({ operatorToken }: ts.BinaryExpression): boolean {
  return operatorToken.kind === ts.SyntaxKind.ExclamationEqualsEqualsToken;
}

function isThrow(node: ts.Node): boolean {
  if (ts.isThrowStatement(node)) return true;
  return ts.isCallExpression(node) && /(^|\.)(reject|sendProblem)$/.test(node.expression.getText());
}

/** `failure = error`, `failure ??= { error }` */
function isAssigned(node: ts.Node, name: string | undefined): boolean {
  if (!ts.isBinaryExpression(node) || name === undefined) return false;
  const { kind } = node.operatorToken;
  if (kind !== ts.SyntaxKind.EqualsToken && kind !== ts.SyntaxKind.QuestionQuestionEqualsToken) return false;
  return some(node.right, (part) => ts.isIdentifier(part) && part.text === name);
}

/** Whether an error for which the condition holds is kept, whatever else is asked for around it. */
function isKept(condition: ts.Expression, isNegative: boolean): boolean {
  let negative = isNegative;
  let at: ts.Node = condition;
  for (; !ts.isIfStatement(at.parent); at = at.parent) {
    const { parent } = at;
    if (ts.isParenthesizedExpression(parent)) continue;
    if (ts.isPrefixUnaryExpression(parent)) negative = !negative;
    else if (ts.isBinaryExpression(parent)) {
      const isOr = parent.operatorToken.kind === ts.SyntaxKind.BarBarToken;
      const isAnd = parent.operatorToken.kind === ts.SyntaxKind.AmpersandAmpersandToken;
      if (!isOr && !isAnd) return false;
      const other = parent.left === at ? parent.right : parent.left;
      // Another condition, and the error is thrown all the same.
      if (isOr === negative && !isAboutClass(other)) return false;
    } else return false;
  }
  if (at !== at.parent.expression) return false;
  const { thenStatement, elseStatement } = at.parent;
  if (negative) return some(thenStatement, isThrow);
  if (some(thenStatement, isThrow)) return false;
  if (elseStatement !== undefined) return true;
  return some(
    thenStatement,
    (node) => ts.isReturnStatement(node) || ts.isContinueStatement(node) || ts.isBreakStatement(node),
  );
}

/** `error instanceof PandoError`, `isPandoError(error)`: what has a code is one. */
function isAboutClass(node: ts.Expression): boolean {
  return /^!?\(?(isPandoError\(\w+\)|\w+ instanceof PandoError)\)?$/.test(node.getText());
}

function some(node: ts.Node, is: (node: ts.Node) => boolean): boolean {
  return is(node) || ts.forEachChild(node, (child) => some(child, is) || undefined) === true;
}

function hasOwnUnit(node: ts.Node, top: ts.Node): boolean {
  if (node === top) return false;
  if (ts.isFunctionDeclaration(node) || ts.isClassLike(node)) return true;
  if (ts.isClassLike(top) && (ts.isMethodDeclaration(node) || ts.isAccessor(node))) return true;
  if (!ts.isVariableDeclaration(node) || node.initializer === undefined) return false;
  return ts.isArrowFunction(node.initializer) || ts.isFunctionExpression(node.initializer);
}

/** A name that stands for something, and is not being given to it. */
function isMention(node: ts.Node): boolean {
  if (!ts.isIdentifier(node) && !ts.isPrivateIdentifier(node)) return false;
  return (node.parent as { name?: ts.Node }).name !== node || ts.isPropertyAccessExpression(node.parent);
}

function handlerOf(options: ts.ObjectLiteralExpression): ts.Node {
  const own = options.properties.find(({ name }) => name?.getText() === 'handler');
  return own ?? (options.parent as ts.CallExpression).arguments.at(-1)!;
}

function propertyOf(node: ts.ObjectLiteralExpression, name: string): ts.Expression | undefined {
  const found = node.properties.find((property) => property.name?.getText() === name);
  return found !== undefined && ts.isPropertyAssignment(found) ? found.initializer : undefined;
}

function partsOf(type: ts.Type): readonly ts.Type[] {
  return type.isUnion() ? type.types : [type];
}

function pathOf({ fileName }: ts.SourceFile): string {
  return fileName.startsWith(`${ROOT}/`) ? fileName.slice(ROOT.length + 1) : fileName;
}

function nameOf(node: ts.Node): string {
  const path = pathOf(node.getSourceFile())
    .replace(/^packages\//, '')
    .replace('/src/', '/');
  const { name } = node as { name?: ts.Node };
  return `${path}#${name?.getText() ?? (ts.isConstructorDeclaration(node) ? 'constructor' : '')}`;
}

function visit(node: ts.Node, look: (node: ts.Node) => void): void {
  look(node);
  ts.forEachChild(node, (child) => visit(child, look));
}

/** Kinds by code, of the table of errors. */
function readKinds(file: ts.SourceFile): ReadonlyMap<string, string> {
  const kinds = new Map<string, string>();
  visit(file, (node) => {
    if (!ts.isPropertyAssignment(node) || !ts.isObjectLiteralExpression(node.initializer)) return;
    const kind = propertyOf(node.initializer, 'kind');
    if (kind !== undefined && ts.isStringLiteral(kind))
      kinds.set(node.name.getText().replaceAll("'", ''), kind.text);
  });
  return kinds;
}
