/** Whether the OpenAPI document says of each operation what it is really refused with. */
import { readFileSync } from 'node:fs';
import type { FastifyRequest } from 'fastify';
import type { App } from '../context.ts';
import { codeOfAnswer } from '../plugins/errors.ts';
import type { Job, JobKind } from '../schemas/index.ts';

const DOCUMENT = new URL('../../../../docs/openapi.json', import.meta.url);

interface Operation {
  readonly 'operationId': string;
  readonly 'x-pando-errors': readonly string[];
}

let listed: ReadonlyMap<string, ReadonlySet<string>> | undefined;

/** Codes by operationId, of docs/openapi.json. */
export function listedErrors(): ReadonlyMap<string, ReadonlySet<string>> {
  if (listed !== undefined) return listed;
  const { paths } = JSON.parse(readFileSync(DOCUMENT, 'utf8')) as {
    paths: Record<string, Record<string, Operation>>;
  };
  const operations = Object.values(paths).flatMap((methods) => Object.values(methods));
  listed = new Map(
    operations.map(({ operationId, 'x-pando-errors': codes }) => [operationId, new Set(codes)]),
  );
  return listed;
}

export interface Unlisted {
  readonly operation: string;
  readonly code: string;
}

/** Looks at every answer of the app; what it returns is what was answered and is not listed. */
export function watchErrors(app: App): () => readonly Unlisted[] {
  const missing: Unlisted[] = [];
  app.addHook('onResponse', (request, _reply, done) => {
    const code = codeOfAnswer(request);
    const operation = operationOf(request);
    if (code !== undefined && operation !== undefined && listedErrors().get(operation)?.has(code) !== true)
      missing.push({ operation, code });
    done();
  });
  return () => missing;
}

/** The operation that begins jobs of a kind: its list has what they end with, too. */
export const BEGUN_BY: Readonly<Record<JobKind, string>> = {
  gc: 'collectGarbage',
  import: 'importVm',
  repair: 'repair',
  restore: 'restoreBackup',
  verify: 'verify',
};

/** What the job has ended with, when it is not listed. */
export function unlistedEnd({ kind, error }: Job): readonly Unlisted[] {
  const operation = BEGUN_BY[kind];
  if (error === undefined || listedErrors().get(operation)?.has(error.code) === true) return [];
  return [{ operation, code: error.code }];
}

function operationOf({ routeOptions }: FastifyRequest): string | undefined {
  return (routeOptions.schema as { readonly operationId?: string } | undefined)?.operationId;
}
