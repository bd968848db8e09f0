/** From an operation and what is given to it to a request. */
import { OPERATIONS } from './generated/operations.ts';
import type { Sent } from './transport.ts';
import type { OperationId } from './types.ts';

export interface Operation {
  readonly method: string;
  /** With parameters as `{name}`. */
  readonly path: string;
  readonly query?: readonly string[];
  readonly header?: readonly string[];
  /** Media types that it takes. */
  readonly body?: readonly string[];
  /** And those that it answers with. */
  readonly answers?: readonly string[];
  readonly events?: readonly string[];
}

type Plain = string | number | boolean | undefined;

export function operation(id: OperationId): Operation {
  return OPERATIONS[id];
}

/**
 * The request without its body. What is undefined is left out; several values of one name go one after another.
 * @throws TypeError for a parameter that is missing in the path, or that the operation does not have
 */
export function requestOf(id: OperationId, given: object): Sent {
  const { method, path, query = [], header = [] } = operation(id);
  const values = new Map(Object.entries(given as Record<string, unknown>));
  values.delete('body');
  const take = (name: string): unknown => {
    const value = values.get(name);
    values.delete(name);
    return value;
  };
  const filled = path.replaceAll(/\{(\w+)\}/g, (_whole, name: string) => {
    const value = take(name);
    if (typeof value !== 'string' || value === '') throw new TypeError(`${id}: ${name} is missing`);
    return encodeURIComponent(value);
  });
  const search = new URLSearchParams();
  for (const name of query) {
    const value = take(name);
    for (const one of Array.isArray(value) ? (value as Plain[]) : [value as Plain]) {
      if (one !== undefined) search.append(name, String(one));
    }
  }
  const headers: Record<string, string> = {};
  for (const name of header) {
    const value = take(name) as Plain;
    if (value !== undefined) headers[name] = String(value);
  }
  const [unknown] = [...values].filter(([, value]) => value !== undefined);
  if (unknown !== undefined) throw new TypeError(`${id} has no parameter ${unknown[0]}`);
  return { method, path: search.size === 0 ? filled : `${filled}?${search.toString()}`, headers };
}
