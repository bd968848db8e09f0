/** docs/openapi.json is what the routes say. */
import { readFileSync } from 'node:fs';
import { ERROR_CODES } from '@pando/common';
import { expect, test } from 'vitest';
import { OPERATION_ERRORS } from '../../packages/api/src/route-errors.ts';
import { OPENAPI_FILE, openapiFile } from '../../scripts/openapi.ts';

interface Operation {
  readonly 'operationId': string;
  readonly 'x-pando-errors': readonly string[];
}

const file = readFileSync(OPENAPI_FILE, 'utf8');
const { paths, 'x-pando-error-codes': codes } = JSON.parse(file) as {
  'paths': Record<string, Record<string, Operation>>;
  'x-pando-error-codes': Record<string, { status: number }>;
};
const operations = Object.values(paths).flatMap((methods) => Object.values(methods));

test('docs/openapi.json is as scripts/openapi.ts writes it', async () => {
  // Compared as a whole, told in short: the difference would be thousands of lines.
  const isSame = file === (await openapiFile());
  expect(isSame, 'routes have changed: run node scripts/openapi.ts').toBe(true);
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
