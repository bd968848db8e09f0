export { Client, resultOf, type Started } from './client.ts';
export { ServerRefusal, type Problem } from './problem.ts';
export type { ReceivedBytes, TransportOptions } from './transport.ts';
export type {
  AnswerOf,
  Arguments,
  ArgumentsOf,
  BodyOf,
  CallId,
  ItemOf,
  JobId,
  ListId,
  OperationId,
} from './types.ts';
export type * from './generated/schema.ts';
