/** Which errors the OpenAPI document lists for a request, so that tests with a real server notice others. */
import { readFileSync } from 'node:fs';
import { BEGUN_BY } from '../../packages/api/src/testing/listed-errors.ts';

interface Operation {
  readonly 'operationId': string;
  readonly 'x-pando-errors': readonly string[];
}

interface Route {
  readonly method: string;
  readonly pattern: RegExp;
  readonly operation: Operation;
}

let routes: readonly Route[] | undefined;

function allRoutes(): readonly Route[] {
  if (routes !== undefined) return routes;
  const text = readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8');
  const { paths } = JSON.parse(text) as { paths: Record<string, Record<string, Operation>> };
  routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      method: method.toUpperCase(),
      pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/?]+')}(\\?|$)`),
      operation,
    })),
  );
  return routes;
}

/** What a job has ended with and the operation that has begun it does not list; of an answer that is a job, or a page of jobs. */
export function unlistedEnd(answer: unknown): { operation: string; code: string } | undefined {
  const { kind, state, error, items } = (answer ?? {}) as Record<string, unknown>;
  if (Array.isArray(items)) return items.map(unlistedEnd).find((found) => found !== undefined);
  const { code } = (error ?? {}) as { readonly code?: unknown };
  if (typeof kind !== 'string' || typeof state !== 'string' || typeof code !== 'string') return undefined;
  const begunBy: Readonly<Record<string, string>> = BEGUN_BY;
  const begun = allRoutes().find(({ operation }) => operation.operationId === begunBy[kind]);
  if (begun === undefined || begun.operation['x-pando-errors'].includes(code)) return undefined;
  return { operation: begun.operation.operationId, code };
}

/** @throws Error for a job that has ended with what its operation does not list */
export function checkEnds(answer: unknown): void {
  const found = unlistedEnd(answer);
  if (found !== undefined)
    throw new Error(
      `a job of ${found.operation} ended with ${found.code}, which packages/api/src/route-errors.ts does not list`,
    );
}

/** @throws Error when the operation behind the request does not say that it answers so */
export function checkListed(method: string, path: string, code: unknown): void {
  const route = allRoutes().find((one) => one.method === method && one.pattern.test(path));
  if (route === undefined || typeof code !== 'string') return;
  const { operationId, 'x-pando-errors': errors } = route.operation;
  if (!errors.includes(code))
    throw new Error(`${operationId} answered ${code}, which packages/api/src/route-errors.ts does not list`);
}
