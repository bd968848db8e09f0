/**
 * Checks requests against their schemas. Bodies are taken as they are. What comes as text (query, path, headers) is
 * turned into numbers and booleans where the schema wants them, and only when the text is exactly one: not 1.5 for an
 * integer, not `yes` for true.
 */
import type { FastifySchemaCompiler, FastifySchemaValidationError } from 'fastify';
import { Compile } from 'typebox/compile';
import type { TSchema } from '@fastify/type-provider-typebox';

export const validatorCompiler: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const check = Compile(schema);
  const wanted = httpPart === 'body' ? [] : typedProperties(schema);
  return (given: unknown) => {
    const value = wanted.length === 0 ? given : convert(given as Record<string, unknown>, wanted);
    return check.Check(value) ? { value } : { error: check.Errors(value) as FastifySchemaValidationError[] };
  };
};

type Wanted = readonly [name: string, type: 'integer' | 'number' | 'boolean'];

function typedProperties(schema: TSchema): Wanted[] {
  const properties = (schema as { properties?: Record<string, { type?: string }> }).properties ?? {};
  return Object.entries(properties).flatMap(([name, { type }]): Wanted[] =>
    type === 'integer' || type === 'number' || type === 'boolean' ? [[name, type]] : [],
  );
}

function convert(given: Record<string, unknown>, wanted: readonly Wanted[]): Record<string, unknown> {
  const value = { ...given };
  for (const [name, type] of wanted) {
    const text = value[name];
    if (typeof text !== 'string') continue;
    if (type === 'boolean') {
      if (text === 'true' || text === 'false') value[name] = text === 'true';
    } else if (/^-?\d+(\.\d+)?$/.test(text)) {
      value[name] = Number(text);
    }
  }
  return value;
}
