/** The names of records that have changed since a mirror: what it reads of them, and takes off the list. */
import type { Catalog, CatalogSnapshot } from '@pando/catalog';
import { CHANGE_TABLE } from './state.ts';

/** More changed records than this, and everything is mirrored anew. */
const CHANGES_MAX = 100_000;
/** Names that are taken off the list in one batch, where there are many. */
const BATCH_NAMES = 10_000;

/** Names of changes before a generation; undefined when there are too many. */
export async function changesBefore(snapshot: CatalogSnapshot, upTo: string): Promise<string[] | undefined> {
  const keys: string[] = [];
  for await (const { key } of snapshot.entries(CHANGE_TABLE)) {
    if (key >= upTo) break;
    keys.push(key);
    if (keys.length > CHANGES_MAX) return undefined;
  }
  return keys;
}

export async function removeChanges(catalog: Catalog, upTo: string): Promise<void> {
  for (;;) {
    const found = await catalog.list(CHANGE_TABLE, { before: upTo, limit: BATCH_NAMES });
    if (found.length === 0) return;
    await catalog.commit(found.map(({ key }) => ({ type: 'delete', table: CHANGE_TABLE, key })));
  }
}
