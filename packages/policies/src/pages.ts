/** Cursors of lists: the key of the last item that was handed out, with the list that it belongs to. */
import type { CatalogEntry } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { Page, PageRequest } from '@pando/fleet';
import type { PolicyContext } from './context.ts';
import type { Table } from './records.ts';

const PAGE_ITEMS_DEFAULT = 100;
const PAGE_ITEMS_MAX = 1000;
const CURSOR_CHARACTERS_MAX = 8192;

/** @throws `request-invalid` */
export function pageLimit({ limit = PAGE_ITEMS_DEFAULT }: PageRequest): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_ITEMS_MAX) {
    throw new PandoError('request-invalid', `limit is from 1 to ${PAGE_ITEMS_MAX}, not ${limit}`);
  }
  return limit;
}

/** A page of a table; `toItems` may drop some. @throws `cursor-invalid` */
export async function catalogPage<T>(
  ctx: PolicyContext,
  table: Table,
  prefix: string,
  request: PageRequest,
  toItems: (entries: readonly CatalogEntry[]) => T[] | Promise<T[]>,
): Promise<Page<T>> {
  const limit = pageLimit(request);
  const list = `${table}/${prefix}`;
  const [after] = decode(list, request.cursor, 1);
  const found = await ctx.catalog.list(table, {
    prefix,
    limit: limit + 1,
    ...(after === undefined ? {} : { after: String(after) }),
  });
  const entries = found.slice(0, limit);
  const items = await toItems(entries);
  return found.length > limit ? { items, nextCursor: encode(list, entries.at(-1)!.key) } : { items };
}

/** Where a list of several sources goes on. */
export function encodeSource(list: string, source: number, cursor: string | undefined): string {
  return encode(list, source, cursor ?? null);
}

/** @throws `cursor-invalid` */
export function decodeSource(
  list: string,
  cursor: string | undefined,
): { source: number; cursor: string | undefined } {
  const [source = 0, inner = null] = decode(list, cursor, 2);
  if (!Number.isInteger(source) || Number(source) < 0) throw invalid();
  return { source: Number(source), cursor: inner === null ? undefined : String(inner) };
}

function encode(list: string, ...parts: (string | number | null)[]): string {
  return Buffer.from(JSON.stringify([1, list, ...parts])).toString('base64url');
}

function decode(
  list: string,
  cursor: string | undefined,
  length: number,
): readonly (string | number | null)[] {
  if (cursor === undefined) return [];
  if (cursor.length > CURSOR_CHARACTERS_MAX) throw invalid();
  let parts: unknown;
  try {
    parts = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    throw invalid();
  }
  if (!Array.isArray(parts) || parts.length !== length + 2 || parts[0] !== 1 || parts[1] !== list) {
    throw invalid();
  }
  const rest = parts.slice(2) as unknown[];
  const isText = (part: unknown): boolean =>
    typeof part === 'string' ? part.isWellFormed() && !part.includes('\u0000') : false;
  if (!rest.every((part) => part === null || typeof part === 'number' || isText(part))) throw invalid();
  return rest as (string | number | null)[];
}

function invalid(): PandoError {
  return new PandoError('cursor-invalid', 'the cursor is not one of this list');
}
