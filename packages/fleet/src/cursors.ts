/**
 * Cursors of lists: the key of the last item that was handed out, with the list that it belongs to. A list goes on
 * after that key, so what is created or deleted meanwhile neither repeats nor hides another item.
 */
import { PandoError } from '@pando/common';
import { PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX } from './limits.ts';
import type { Page, PageRequest } from './page-types.ts';

const CURSOR_CHARACTERS_MAX = 4096;

export function encodeCursor(list: string, key: string): string {
  return Buffer.from(JSON.stringify([1, list, key])).toString('base64url');
}

/**
 * The key in a cursor of the list; undefined for the first page.
 * @throws `cursor-invalid`
 */
export function decodeCursor(list: string, cursor: string | undefined): string | undefined {
  if (cursor === undefined) return undefined;
  const parts = parse(cursor);
  if (parts?.[0] !== 1 || parts.length !== 3 || parts[1] !== list || typeof parts[2] !== 'string') {
    throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
  }
  if (!parts[2].isWellFormed() || parts[2].includes('\u0000')) {
    throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
  }
  return parts[2];
}

function parse(cursor: string): unknown[] | undefined {
  if (cursor.length > CURSOR_CHARACTERS_MAX) return undefined;
  try {
    const value = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown;
    return Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** @throws `request-invalid` */
export function pageLimit(request: PageRequest): number {
  const limit = request.limit ?? PAGE_ITEMS_DEFAULT;
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_ITEMS_MAX) {
    throw new PandoError('request-invalid', `limit is from 1 to ${PAGE_ITEMS_MAX}, not ${limit}`);
  }
  return limit;
}

/** A page of at most `limit` out of up to `limit + 1` keys that were found; `toItems` may drop some. */
export async function pageOf<E extends { readonly key: string }, T>(
  list: string,
  limit: number,
  found: readonly E[],
  toItems: (entries: readonly E[]) => T[] | Promise<T[]>,
): Promise<Page<T>> {
  const entries = found.slice(0, limit);
  const items = await toItems(entries);
  return found.length > limit ? { items, nextCursor: encodeCursor(list, entries.at(-1)!.key) } : { items };
}
