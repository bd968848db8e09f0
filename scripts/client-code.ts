/**
 * The code of @pando/client that is generated from the OpenAPI document: types by openapi-typescript, which say what each operation takes and
 * answers, and a table of where each parameter goes, which is all that is left of the document at run time.
 */
import openapiTS, { astToString, type OpenAPI3 } from 'openapi-typescript';
import ts from 'typescript';

export interface OpenApi {
  readonly info: { version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>> };
}

interface Operation {
  readonly 'operationId': string;
  readonly 'parameters'?: readonly { readonly name: string; readonly in: string }[];
  readonly 'requestBody'?: { readonly content: Readonly<Record<string, unknown>> };
  readonly 'responses': Readonly<Record<string, { readonly content?: Readonly<Record<string, unknown>> }>>;
  /** Names of schemas: what the job ends with that it may answer with. */
  readonly 'x-pando-job-result'?: readonly string[];
  /** Names of schemas by the events that it streams. */
  readonly 'x-pando-events'?: Readonly<Record<string, string>>;
}

/** Of what openapi-typescript writes, the rest says the same once more. */
const DECLARATIONS = new Set(['components', 'operations']);

const HEAD = (what: string): string =>
  `/** ${what} Written by scripts/openapi.ts from docs/openapi.json: do not change it by hand. */\n`;

/** Types of every named schema and operation. */
export async function schemaFile(document: OpenApi): Promise<string> {
  const nodes = await openapiTS(withoutProblems(document) as unknown as OpenAPI3, {
    immutable: true,
    silent: true,
  });
  const kept = nodes.filter((node) => ts.isInterfaceDeclaration(node) && DECLARATIONS.has(node.name.text));
  const names = Object.keys(document.components.schemas);
  const all = operationsOf(document);
  const schema = (name: string): string => `components['schemas']['${name}']`;
  const results = all.flatMap(({ operation: { operationId, 'x-pando-job-result': result } }) =>
    result === undefined ? [] : [`  readonly '${operationId}': ${result.map(schema).join(' | ')};`],
  );
  const events = all.flatMap(({ operation: { operationId, 'x-pando-events': streamed } }) =>
    streamed === undefined
      ? []
      : [`  readonly '${operationId}': ${Object.values(streamed).map(schema).join(' | ')};`],
  );
  return [
    HEAD('What the operations of REST take and answer.'),
    astToString(kept),
    ...names.map((name) => `export type ${name} = ${schema(name)};`),
    '',
    '/** What the jobs end with that operations begin. */',
    `export interface JobResults {\n${results.join('\n')}\n}`,
    '',
    '/** The events that operations stream. */',
    `export interface StreamedEvents {\n${events.join('\n')}\n}`,
    '',
  ].join('\n');
}

/** Where each parameter goes, and what bodies and answers are. */
export function operationsFile(document: OpenApi): string {
  const rows = operationsOf(document).map(({ method, path, operation }) => {
    const { operationId, parameters = [], requestBody, responses } = operation;
    checkParameters(operationId, parameters);
    const named = (where: string): string[] =>
      parameters.filter((parameter) => parameter.in === where).map(({ name }) => name);
    const answers = Object.entries(responses)
      .filter(([status]) => status.startsWith('2'))
      .flatMap(([, { content = {} }]) => Object.keys(content));
    const row = {
      method: method.toUpperCase(),
      path,
      ...listed('query', named('query')),
      ...listed('header', named('header')),
      ...listed('body', Object.keys(requestBody?.content ?? {})),
      ...listed('answers', [...new Set(answers)]),
      ...listed('events', Object.keys(operation['x-pando-events'] ?? {})),
    };
    return `  '${operationId}': ${JSON.stringify(row)},`;
  });
  return [
    HEAD('Where the parameters of each operation go, and the media types of its bodies and answers.'),
    'export const OPERATIONS = {',
    ...rows,
    '} as const;',
    '',
  ].join('\n');
}

function listed(name: string, values: readonly string[]): object {
  return values.length === 0 ? {} : { [name]: values };
}

/** Callers give parameters and the body as one object. */
function checkParameters(id: string, parameters: readonly { readonly name: string }[]): void {
  const names = parameters.map(({ name }) => name);
  if (new Set([...names, 'body']).size <= names.length)
    throw new Error(`parameters of ${id} share a name, or one is called body: ${names.join(', ')}`);
}

interface Located {
  readonly method: string;
  readonly path: string;
  readonly operation: Operation;
}

function operationsOf({ paths }: OpenApi): Located[] {
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method, path, operation })),
  );
  return all.sort((a, b) => (a.operation.operationId < b.operation.operationId ? -1 : 1));
}

/** Every operation answers with the same problems: they need no types of their own. */
function withoutProblems(document: OpenApi): OpenApi {
  const paths = Object.entries(document.paths).map(([path, methods]) => {
    const kept = Object.entries(methods).map(([method, operation]) => {
      const good = Object.entries(operation.responses).filter(([status]) => status.startsWith('2'));
      return [method, { ...operation, responses: Object.fromEntries(good) }] as const;
    });
    return [path, Object.fromEntries(kept)] as const;
  });
  return { ...document, paths: Object.fromEntries(paths) };
}
