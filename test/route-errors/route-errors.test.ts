/** The lists of error codes in the OpenAPI document, against what can be read out of the sources: see the README. */
import { readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { errorsOf, OPERATION_ERRORS } from '../../packages/api/src/route-errors.ts';
import { readCallGraph, type CallGraph } from './call-graph.ts';
import { ALSO_TAKEN, NEVER_ANSWERED, NOT_TAKEN } from './exceptions.ts';
import { reachableCodes, type Reaching } from './reachable.ts';

const document = JSON.parse(readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8')) as {
  paths: Record<string, Record<string, { 'operationId': string; 'x-pando-errors': readonly string[] }>>;
};
const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));

let graph: CallGraph;
let reaching: Reaching;
beforeAll(() => {
  graph = readCallGraph(ALSO_TAKEN.map(({ to }) => to));
  reaching = reachableCodes(graph, NOT_TAKEN, ALSO_TAKEN);
}, 300_000);

const isNever = (operation: string, code: string): boolean =>
  NEVER_ANSWERED.some((one) => one.operation.test(operation) && one.codes.includes(code));

test('the handler of every operation is found', () => {
  expect([...graph.handlers.keys()].sort()).toEqual(operations.map(({ operationId }) => operationId).sort());
});

test('every code that can come out of a handler is in the list of its operation', () => {
  const unlisted = operations.flatMap(({ operationId, 'x-pando-errors': listed }) =>
    [...reaching.of(graph.handlers.get(operationId)!)]
      .filter(([code]) => !listed.includes(code) && !isNever(operationId, code))
      .map(([code, way]) => `${operationId} ${code}: ${way.join(' > ')}`),
  );
  expect(unlisted).toEqual([]);
});

test('nothing is listed for an operation that cannot come out of its handler', () => {
  const made = Object.entries(OPERATION_ERRORS).flatMap(([operation, codes]) => {
    const handler = graph.handlers.get(operation);
    const found = handler === undefined ? new Map<string, never>() : reaching.of(handler);
    return codes.filter((code) => !found.has(code)).map((code) => `${operation}: ${code}`);
  });
  expect(made).toEqual([]);
});

test('what comes out of what runs before and after handlers is in the lists by the shape of the route', () => {
  const listed = errorsOf({
    ...{ method: 'POST', url: '/:vm/:backup/:disk/:policy/:token', operationId: undefined },
    ...{ hasCursor: false, isIdempotent: true, isLimited: true, isRead: false },
    needs: { role: 'admin', on: 'store' },
  });
  const unlisted = graph.hooks.flatMap((hook) =>
    [...reaching.of(hook)]
      // It is in the lists of the operations of jobs.
      .filter(([code]) => code !== 'job-missing' && !(listed as readonly string[]).includes(code))
      .map(([code, way]) => `${code}: ${way.join(' > ')}`),
  );
  expect(unlisted).toEqual([]);
});

test('every exception is needed', () => {
  const needless = [...NOT_TAKEN, ...ALSO_TAKEN].filter((one) => !reaching.used.has(one));
  expect(needless).toEqual([]);
  const never = NEVER_ANSWERED.filter(({ operation, codes }) =>
    codes.some(
      (code) =>
        ![...graph.handlers].some(([id, handler]) => operation.test(id) && reaching.of(handler).has(code)),
    ),
  );
  expect(never).toEqual([]);
});
