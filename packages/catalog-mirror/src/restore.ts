/** A catalog from its mirror: which anchors there are, and what one of them leads to. */
import { decodeStored, type Catalog, type CatalogOperation, type RecordName } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import { ID_BYTES, PandoError, idToHex, isPandoError } from '@pando/common';
import { FANOUT, heightFor, readTree } from '@pando/tree';
import { ANCHOR_VERSION, decodeAnchor, type Anchor } from './anchor.ts';
import { PageReader } from './page.ts';
import { putState, type MirrorRef } from './state.ts';

/** Records of a catalog batch. */
const BATCH_RECORDS = 1_000;

export interface FoundAnchor extends Anchor {
  readonly id: Uint8Array;
}

export interface RestoredCatalog {
  readonly records: number;
  /** Records whose stored form was damaged in the catalog already when it was mirrored; they are left out. */
  readonly unreadable: readonly RecordName[];
}

/** All anchors of the store that can be read, the newest first. Reads the ends of all segments. */
export async function findAnchors(store: ChunkStore, storeId: Uint8Array): Promise<FoundAnchor[]> {
  const ids = await store.anchors();
  const found = new Map<string, FoundAnchor>();
  for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
    const id = ids.slice(at, at + ID_BYTES);
    const chunk = await store.readChunk(id, 0).catch((error: unknown) => {
      if (isPandoError(error) && error.kind === 'data') return undefined; // others lead to older mirrors
      throw error;
    });
    const anchor = chunk === undefined ? undefined : decodeAnchor(chunk);
    if (anchor === undefined || !Buffer.from(storeId).equals(anchor.storeId)) continue;
    if (anchor.version > ANCHOR_VERSION) {
      throw new PandoError('store-newer', `a mirror of the catalog has version ${anchor.version}`);
    }
    if (anchor.chunkBytes === store.chunkBytes) found.set(idToHex(id), { ...anchor, id });
  }
  return [...found.values()].sort((a, b) => b.epoch - a.epoch || b.count - a.count);
}

/**
 * Puts what the anchor leads to into an empty catalog; durable when it resolves. When it rejects with an error of kind `data`, the mirror
 * cannot be read to its end, and what the catalog holds is of no use.
 * @param epoch greater than that of every anchor of the store
 * @throws `chunk-missing`, `chunk-corrupt`, `catalog-corrupt`; the errors of the catalog
 */
export async function restoreCatalog(
  store: ChunkStore,
  anchor: FoundAnchor,
  catalog: Catalog,
  epoch: number,
): Promise<RestoredCatalog> {
  const { chunkBytes } = store;
  const { root } = anchor;
  if (root.size % chunkBytes !== 0 || root.height !== heightFor(root.size, chunkBytes)) {
    throw new PandoError('catalog-corrupt', 'an anchor has a root that is none');
  }
  const reader = new PageReader();
  const unreadable: RecordName[] = [];
  const leaf = new Uint8Array(FANOUT * chunkBytes);
  let operations: CatalogOperation[] = [];
  let records = 0;
  for (let offset = 0; offset < root.size; offset += leaf.byteLength) {
    const length = Math.min(leaf.byteLength, root.size - offset);
    const holes: number[] = [];
    await readTree(store, root, offset, length, leaf, 0, holes);
    for (let at = 0; at < length; at += chunkBytes) {
      if (isInside(holes, offset + at)) continue;
      for (const record of reader.add(leaf.subarray(at, at + chunkBytes))) {
        const { table, key } = record;
        const value = unlessCorrupt(() => decodeStored(record));
        if (value === undefined) unreadable.push({ table, key });
        else operations.push({ type: 'put', table, key, value });
      }
    }
    if (operations.length < BATCH_RECORDS) continue;
    records += operations.length;
    await catalog.commit(operations);
    operations = [];
  }
  reader.finish();
  records += operations.length;
  // Until there is a newer mirror, this one is kept.
  const current = refTo(anchor);
  await catalog.commit([
    ...operations,
    putState({ version: 1, epoch, pageSet: 0, pages: 0, slots: 0, current }),
  ]);
  return { records, unreadable };
}

function refTo({ epoch, count, at, id, root }: FoundAnchor): MirrorRef {
  return {
    ...{ epoch, count, at, anchorId: id },
    ...{ rootId: root.id, rootHeight: root.height, rootSize: root.size },
  };
}

/** Whether the byte at `offset` is in one of the holes: offset, length pairs. */
function isInside(holes: readonly number[], offset: number): boolean {
  for (let i = 0; i < holes.length; i += 2) {
    if (offset >= holes[i]! && offset < holes[i]! + holes[i + 1]!) return true;
  }
  return false;
}

function unlessCorrupt<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (isPandoError(error, 'catalog-corrupt')) return undefined;
    throw error;
  }
}
