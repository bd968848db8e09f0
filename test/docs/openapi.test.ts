/** docs/openapi.json, and what @pando/client has of it, is what the routes say. */
import { readFileSync } from 'node:fs';
import { ERROR_CODES } from '@pando/common';
import { expect, test } from 'vitest';
import { OPERATION_ERRORS } from '../../packages/api/src/route-errors.ts';
import { JOB_RESULTS, STREAMED_EVENTS } from '../../packages/api/src/extensions.ts';
import { generatedFiles, OPENAPI_FILE } from '../../scripts/openapi.ts';

interface Operation {
  readonly 'operationId': string;
  readonly 'responses': Record<string, { readonly content?: object }>;
  readonly 'x-pando-errors': readonly string[];
}

const file = readFileSync(OPENAPI_FILE, 'utf8');
const {
  paths,
  'components': { schemas },
  'x-pando-error-codes': codes,
} = JSON.parse(file) as {
  'components': { schemas: Record<string, object> };
  'paths': Record<string, Record<string, Operation>>;
  'x-pando-error-codes': Record<string, { status: number }>;
};
const operations = Object.values(paths).flatMap((methods) => Object.values(methods));

test('docs/openapi.json and the code of the client are as scripts/openapi.ts writes them', async () => {
  for (const { file: path, text } of await generatedFiles()) {
    // Compared as a whole, told in short: the difference would be thousands of lines.
    const isSame = readFileSync(path, 'utf8') === text;
    expect(isSame, `routes have changed: run node scripts/openapi.ts (${path.pathname})`).toBe(true);
  }
});

test('of every job it is said what it ends with, and of every stream what its events are', () => {
  const having = (has: (operation: Operation) => boolean): string[] =>
    operations.flatMap((operation) => (has(operation) ? [operation.operationId] : [])).sort();
  expect(having(({ responses }) => '202' in responses)).toEqual(Object.keys(JOB_RESULTS).sort());
  const streams = having(({ responses }) => 'text/event-stream' in (responses['200']?.content ?? {}));
  expect(streams).toEqual(Object.keys(STREAMED_EVENTS).sort());
  const streamed = Object.values(STREAMED_EVENTS).flatMap((events) => Object.values(events));
  for (const name of [...Object.values(JOB_RESULTS).flat(), ...streamed])
    expect(schemas).toHaveProperty([name]);
});

test('every operation says which errors it can answer with, and the document has them all with their status', () => {
  expect(Object.keys(codes).sort()).toEqual(Object.keys(ERROR_CODES).sort());
  for (const { operationId, 'x-pando-errors': errors } of operations) {
    expect(errors, operationId).toContain('internal');
    for (const code of errors) expect(codes, operationId).toHaveProperty([code]);
  }
});

test('errors are listed for operations that there are', () => {
  const names = new Set(operations.map(({ operationId }) => operationId));
  for (const name of Object.keys(OPERATION_ERRORS)) expect(names).toContain(name);
});
