/** What the fuzzer takes from the OpenAPI document: every operation with the schemas of what it is sent. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly patternProperties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly format?: string;
}

export interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly required?: boolean;
  readonly schema: Schema;
}

export interface Operation {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly parameters: readonly Parameter[];
  /** Media types of its body with their schemas. */
  readonly bodies: readonly { readonly mediaType: string; readonly schema: Schema }[];
  /** Codes that it says it can answer with. */
  readonly errors: readonly string[];
}

export interface Document {
  readonly operations: readonly Operation[];
  /** The schema itself, whatever it refers to. */
  resolve(schema: Schema): Schema;
}

interface RawOperation {
  readonly 'operationId'?: string;
  readonly 'parameters'?: readonly Parameter[];
  readonly 'x-pando-errors'?: readonly string[];
  readonly 'requestBody'?: { readonly content?: Readonly<Record<string, { readonly schema?: Schema }>> };
}

export function readDocument(json: unknown): Document {
  const raw = json as {
    readonly paths: Readonly<Record<string, Readonly<Record<string, RawOperation>>>>;
    readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
  };
  const operations = Object.entries(raw.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      id: operation.operationId ?? `${method} ${path}`,
      method: method.toUpperCase(),
      path,
      parameters: operation.parameters ?? [],
      errors: operation['x-pando-errors'] ?? [],
      bodies: Object.entries(operation.requestBody?.content ?? {}).map(([mediaType, { schema = {} }]) => ({
        mediaType,
        schema,
      })),
    })),
  );
  return {
    operations,
    resolve(schema) {
      let found = schema;
      while (found.$ref !== undefined) {
        const name = found.$ref.split('/').at(-1)!;
        const next = raw.components.schemas[name];
        if (next === undefined) throw new Error(`the document refers to ${found.$ref}, which is not there`);
        found = next;
      }
      return found;
    },
  };
}
