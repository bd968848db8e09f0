/** Which errors the OpenAPI document lists for a request, so that tests with a real server notice others. */
import { readFileSync } from 'node:fs';

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

/** @throws Error when the operation behind the request does not say that it answers so */
export function checkListed(method: string, path: string, code: unknown): void {
  const route = allRoutes().find((one) => one.method === method && one.pattern.test(path));
  if (route === undefined || typeof code !== 'string') return;
  const { operationId, 'x-pando-errors': errors } = route.operation;
  if (!errors.includes(code))
    throw new Error(`${operationId} answered ${code}, which packages/api/src/route-errors.ts does not list`);
}
