/** Schemas that several routes share. Response types are named components (`$id`) of the OpenAPI document. */
import { Type, type Static, type TSchema } from '@fastify/type-provider-typebox';
import { VM_TAGS_MAX } from '@pando/common';

/** Refers to a schema that the app knows by its `$id`; the static type stays. */
export function ref<T extends TSchema>(
  schema: T & { $id?: string },
): ReturnType<typeof Type.Unsafe<Static<T>>> {
  if (schema.$id === undefined) throw new Error('a schema without $id cannot be referred to');
  return Type.Unsafe<Static<T>>({ $ref: `${schema.$id}#` });
}

/** An array that nobody changes. */
export function list<T extends TSchema>(
  items: T,
  options: { description?: string } = {},
): ReturnType<typeof Type.Unsafe<readonly Static<T>[]>> {
  return Type.Unsafe<readonly Static<T>[]>(Type.Array(items, options));
}

/** Long enough for `<vm>@<backup>` with every byte of both percent-encoded. */
export const REFERENCE_CHARACTERS_MAX = 1600;

export const Reference = Type.String({ minLength: 1, maxLength: REFERENCE_CHARACTERS_MAX });

/** What a name may hold is said by `name-invalid`, not by the schema: the rule counts bytes. */
export const Name = Type.String({
  description: '1 to 255 bytes of UTF-8 without `/`, `@` and control characters',
});

/** What a VM is grouped by. */
export const Tags = Type.Array(Name, {
  maxItems: VM_TAGS_MAX,
  description: 'what a VM is grouped by, for policies, tokens and reports: names',
});

export const RootKeyed = Type.Boolean({
  description:
    'whether a secret of the store is in the root: equal for equal disks within the store only, and not to be computed elsewhere',
});

export const Bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

export const PAGE_ITEMS_MAX = 1000;
export const PAGE_ITEMS_DEFAULT = 100;

export const PageQuery = {
  cursor: Type.Optional(Type.String({ maxLength: 2048, description: '`nextCursor` of the page before' })),
  limit: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: PAGE_ITEMS_MAX,
      description: `items a page; ${PAGE_ITEMS_DEFAULT} when absent`,
    }),
  ),
};

/** RFC 9457. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: '`urn:pando:problem:<code>`' }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'what went wrong this time, for people' }),
    code: Type.String({ description: 'what went wrong, for programs: stable' }),
    instance: Type.String({ description: 'names this request in the log of the server' }),
    remedy: Type.String({ description: 'what to do about it' }),
  },
  { $id: 'Problem', additionalProperties: false },
);
export type Problem = Static<typeof Problem>;

const problemContent = {
  description: 'A problem document (RFC 9457)',
  content: { 'application/problem+json': { schema: ref(Problem) } },
};

/** The answers that every route can give besides its own. */
export const problems = { '4xx': problemContent, '5xx': problemContent };

/** An answer with no body. */
export const Nothing = Type.Null({ description: 'Done' });

/** Header of every answer that names something. */
export function withLocation<T extends TSchema>(description: string, schema: T): object {
  return {
    description,
    headers: { Location: { type: 'string', description: 'where the result, or the job, is found' } },
    content: { 'application/json': { schema } },
  };
}
