/** What an operation takes and answers, out of what is generated from the OpenAPI document. */
import type { OPERATIONS } from './generated/operations.ts';
import type { JobResults, operations, StreamedEvents } from './generated/schema.ts';

export type OperationId = keyof operations;

/** Of which nothing has to be there. */
type Nothing = object;

/** The same, but what may be absent may also be undefined, at any depth: it is left out of what is sent. */
export type Given<T> = T extends readonly (infer Item)[]
  ? readonly Given<Item>[]
  : T extends object
    ? { readonly [K in keyof T]: Nothing extends Pick<T, K> ? Given<T[K]> | undefined : Given<T[K]> }
    : T;

type OrNothing<T> = [T] extends [undefined] ? Nothing : NonNullable<T>;
type Where<Id extends OperationId> = operations[Id]['parameters'];

/** Parameters of the path, the query and headers, by their names. */
type ParametersOf<Id extends OperationId> = Given<
  OrNothing<Where<Id>['path']> & OrNothing<Where<Id>['query']> & OrNothing<Where<Id>['header']>
>;

type Bodies<Id extends OperationId> = operations[Id]['requestBody'] extends { readonly content: infer All }
  ? All
  : Nothing;

/** What it takes as JSON. */
export type BodyOf<Id extends OperationId> =
  Bodies<Id> extends { readonly 'application/json': infer Json } ? Given<Json> : never;

/** What is given to an operation: its parameters, and its JSON as `body`. */
export type ArgumentsOf<Id extends OperationId> = ParametersOf<Id> &
  ([BodyOf<Id>] extends [never] ? Nothing : { readonly body: BodyOf<Id> });

/** As arguments of a function: none where nothing has to be given. */
export type Arguments<T> = Nothing extends T ? [given?: T] : [given: T];

/** Media types of bytes that it takes. */
export type UploadTypeOf<Id extends OperationId> = Exclude<keyof Bodies<Id>, 'application/json'>;
export type UploadArgumentsOf<Id extends OperationId> = ParametersOf<Id> & {
  readonly body: AsyncIterable<Uint8Array>;
};

type Responses<Id extends OperationId> = operations[Id]['responses'];
type JsonAt<Id extends OperationId, Status> = Status extends keyof Responses<Id>
  ? Responses<Id>[Status] extends { content: { readonly 'application/json': infer Json } }
    ? Json
    : undefined
  : never;

/** What it answers with when it is done; undefined where that says all. */
export type AnswerOf<Id extends OperationId> = JsonAt<Id, 200> | JsonAt<Id, 201> | JsonAt<Id, 204>;

type Table = typeof OPERATIONS;
type Answering<Id extends OperationId> = Table[Id] extends { readonly answers: readonly (infer Type)[] }
  ? Type
  : undefined;

/** Operations that may begin a job. */
export type JobId = keyof JobResults;
/** Operations that stream events. */
export type StreamId = keyof StreamedEvents;
/** Operations that take bytes of any length. */
export type UploadId = {
  [Id in JobId]: [UploadTypeOf<Id>] extends [never] ? never : Id;
}[JobId];
/** Operations that answer with JSON, or with nothing. */
export type CallId = {
  [Id in OperationId]: Answering<Id> extends 'application/json' | undefined ? Exclude<Id, JobId> : never;
}[OperationId];
/** Operations that answer with bytes or text. */
export type BytesId = Exclude<OperationId, CallId | JobId | StreamId>;
/** Operations whose answers are pages. */
export type ListId = {
  [Id in CallId]: AnswerOf<Id> extends { readonly items: readonly unknown[]; readonly nextCursor?: string }
    ? Id
    : never;
}[CallId];

export type ItemOf<Id extends ListId> =
  AnswerOf<Id> extends { readonly items: readonly (infer Item)[] } ? Item : never;
