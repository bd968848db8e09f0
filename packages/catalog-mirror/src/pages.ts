/**
 * Writing the pages of a mirror: those that changes fall into, or all of them. Reads the catalog through a snapshot, one
 * range of keys at a time.
 *
 * A page that gets too full is split, one that is nearly empty is joined with the next; a page keeps its slots, so that
 * nothing else moves. Slots that nobody needs any more are holes.
 */
import { ID_BYTES, PandoError } from '@pando/common';
import type { Catalog, CatalogOperation, CatalogSnapshot, StoredRecord } from '@pando/catalog';
import type { ChunkReader, ChunkWriter, Root } from '@pando/tree';
import { TreeBuilder, resizeTree, updateTree } from '@pando/tree';
import { capacityOf, encodePage, entryBytes, piecesOf } from './page.ts';
import {
  END,
  PAGE_TABLE,
  isMirrored,
  justAfter,
  nameAt,
  pagePrefix,
  positionOf,
  putPage,
  type PageRecord,
} from './state.ts';

/** How full a page is made: some room, so that the next record does not split it again. */
const FILL = 0.75;
/** A page that is less full is joined with the next. */
const JOIN_BELOW = 0.25;
/** Chunks that are written together. */
const BATCH_CHUNKS = 256;
/** Operations of a catalog batch, where there are many. */
const BATCH_OPERATIONS = 2_000;

export interface PagesContext {
  readonly catalog: Catalog;
  readonly store: ChunkReader;
  readonly snapshot: CatalogSnapshot;
  readonly writer: ChunkWriter;
}

export interface WrittenPages {
  readonly root: Root;
  readonly pages: number;
  readonly slots: number;
  /** What the commit that makes them count has to hold. */
  readonly operations: readonly CatalogOperation[];
}

/** A page of the directory: the position from which on it holds records, '' for the first. */
interface Page {
  readonly from: string;
  readonly slots: readonly number[];
}

/** Writes the pages that hold, or are to hold, records at the given positions. */
export async function updatePages(
  context: PagesContext,
  base: { readonly root: Root; readonly pageSet: number; readonly pages: number; readonly slots: number },
  positions: readonly string[],
): Promise<WrittenPages> {
  const { catalog, writer, store } = context;
  const { chunkBytes } = store;
  const prefix = pagePrefix(base.pageSet);
  const operations: CatalogOperation[] = [];
  const chunks = new ChunkBatch(writer);
  let { pages, slots } = base;
  /** Positions before this one are dealt with; undefined behind the last page. */
  let done: Buffer | undefined = Buffer.alloc(0);
  const all = positions.map((position) => Buffer.from(position)).sort((a, b) => Buffer.compare(a, b));
  for (const position of all) {
    if (done === undefined) break;
    if (Buffer.compare(position, done) < 0) continue;
    const page = await pageAt(catalog, prefix, position.toString());
    const replaced = [page];
    let next = await pageAfter(catalog, prefix, page);
    const records = await recordsBetween(context.snapshot, page, next);
    while (next !== undefined && bytesOf(records) < capacityOf(chunkBytes) * JOIN_BELOW) {
      const joined: Page = next;
      next = await pageAfter(catalog, prefix, joined);
      records.push(...(await recordsBetween(context.snapshot, joined, next)));
      replaced.push(joined);
    }
    done = next === undefined ? undefined : Buffer.from(next.from);
    const free = replaced.flatMap((old) => old.slots).reverse();
    const made = split(records, capacityOf(chunkBytes));
    for (const [i, part] of made.entries()) {
      const into = Array.from({ length: piecesOf(part, chunkBytes) }, () => free.pop() ?? slots++);
      // The first keeps its bound, whatever is its first record now.
      const from = i === 0 ? page.from : positionOf(part[0]!);
      operations.push(putPage(prefix + from, into));
      await chunks.add(into, encodePage(part, into, chunkBytes));
    }
    for (const { from } of replaced.slice(1)) {
      if (!made.some((part, i) => i > 0 && positionOf(part[0]!) === from))
        operations.push({ type: 'delete', table: PAGE_TABLE, key: prefix + from });
    }
    chunks.clear(free);
    pages += made.length - replaced.length;
  }
  const grown = await resizeTree(store, writer, base.root, Math.max(1, slots) * chunkBytes);
  const root = await updateTree(store, writer, grown, await chunks.changes());
  return { root, pages, slots, operations };
}

/** Writes all pages, as a new page set: its directory is in the catalog when it resolves, and counts when the commit is done. */
export async function writeAllPages(context: PagesContext, pageSet: number): Promise<WrittenPages> {
  const { catalog, snapshot, writer, store } = context;
  const { chunkBytes } = store;
  const prefix = pagePrefix(pageSet);
  const builder = new TreeBuilder(writer);
  const most = capacityOf(chunkBytes) * FILL;
  let operations: CatalogOperation[] = [];
  let batch: Uint8Array[] = [];
  let pages = 0;
  let slots = 0;
  const flush = async (): Promise<void> => {
    const bytes = Buffer.concat(batch);
    const count = bytes.byteLength / chunkBytes;
    if (count > 0) await builder.append(await writer.writeChunks(bytes, count), count);
    batch = [];
    if (operations.length > 0) await catalog.commit(operations);
    operations = [];
  };
  const emit = async (records: readonly StoredRecord[]): Promise<void> => {
    const into = Array.from({ length: piecesOf(records, chunkBytes) }, () => slots++);
    operations.push(putPage(prefix + (pages === 0 ? '' : positionOf(records[0]!)), into));
    if (into.length > 0) batch.push(encodePage(records, into, chunkBytes));
    pages++;
    if (operations.length === BATCH_CHUNKS) await flush();
  };
  let gathered: StoredRecord[] = [];
  let bytes = 0;
  for await (const part of snapshot.stored({ to: END })) {
    for (const record of part) {
      if (!isMirrored(record.table)) continue;
      const more = entryBytes(record);
      if (gathered.length > 0 && bytes + more > most) {
        await emit(gathered);
        gathered = [];
        bytes = 0;
      }
      gathered.push(record);
      bytes += more;
    }
  }
  if (gathered.length > 0 || pages === 0) await emit(gathered);
  await flush();
  const root = await builder.finish(Math.max(1, slots) * chunkBytes);
  return { root, pages, slots, operations: [] };
}

/** Removes the directories of all page sets but one. */
export async function removeOtherPages(catalog: Catalog, pageSet: number): Promise<void> {
  const kept = pagePrefix(pageSet);
  const behind = pagePrefix(pageSet + 1).slice(0, -1);
  for (const bound of [{ before: kept }, { after: behind }]) {
    for (;;) {
      const found = await catalog.list(PAGE_TABLE, { ...bound, limit: BATCH_OPERATIONS });
      if (found.length > 0)
        await catalog.commit(found.map(({ key }) => ({ type: 'delete', table: PAGE_TABLE, key })));
      if (found.length < BATCH_OPERATIONS) break;
    }
  }
}

/** Records in groups that each fit into a page, about equally full; one that is larger than a page is by itself. */
export function split(records: readonly StoredRecord[], capacity: number): StoredRecord[][] {
  const total = bytesOf(records);
  if (total <= capacity) return [[...records]];
  const target = total / Math.ceil(total / (capacity * FILL));
  const groups: StoredRecord[][] = [];
  let group: StoredRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    const more = entryBytes(record);
    if (group.length > 0 && (bytes >= target || bytes + more > capacity)) {
      groups.push(group);
      group = [];
      bytes = 0;
    }
    group.push(record);
    bytes += more;
  }
  groups.push(group);
  return groups;
}

function bytesOf(records: readonly StoredRecord[]): number {
  return records.reduce((sum, record) => sum + entryBytes(record), 0);
}

async function pageAt(catalog: Catalog, prefix: string, position: string): Promise<Page> {
  const options = { prefix, before: justAfter(prefix + position), reverse: true, limit: 1 };
  const [found] = await catalog.list(PAGE_TABLE, options);
  // The first page begins before everything.
  if (found === undefined)
    throw new PandoError('catalog-corrupt', 'pages of the mirror are missing from the catalog');
  return pageOf(found, prefix);
}

async function pageAfter(catalog: Catalog, prefix: string, { from }: Page): Promise<Page | undefined> {
  const [found] = await catalog.list(PAGE_TABLE, { prefix, after: prefix + from, limit: 1 });
  return found === undefined ? undefined : pageOf(found, prefix);
}

function pageOf({ key, value }: { readonly key: string; readonly value: unknown }, prefix: string): Page {
  return { from: key.slice(prefix.length), slots: (value as PageRecord).slots };
}

async function recordsBetween(
  snapshot: CatalogSnapshot,
  { from }: Page,
  next: Page | undefined,
): Promise<StoredRecord[]> {
  const range = {
    from: from === '' ? undefined : nameAt(from),
    to: next === undefined ? END : nameAt(next.from),
  };
  const records: StoredRecord[] = [];
  for await (const part of snapshot.stored(range)) {
    records.push(...part.filter(({ table }) => isMirrored(table)));
  }
  return records;
}

/** Chunks on their way into slots. */
class ChunkBatch {
  readonly #writer: ChunkWriter;
  readonly #ids = new Map<number, Uint8Array>();
  #slots: number[] = [];
  #chunks: Uint8Array[] = [];

  constructor(writer: ChunkWriter) {
    this.#writer = writer;
  }

  async add(slots: readonly number[], chunks: Uint8Array): Promise<void> {
    if (slots.length === 0) return;
    this.#slots.push(...slots);
    this.#chunks.push(chunks);
    if (this.#slots.length >= BATCH_CHUNKS) await this.#write();
  }

  /** Makes slots holes. */
  clear(slots: readonly number[]): void {
    for (const slot of slots) this.#ids.set(slot, new Uint8Array(ID_BYTES));
  }

  async changes(): Promise<Parameters<typeof updateTree>[3]> {
    await this.#write();
    const slots = [...this.#ids.keys()].sort((a, b) => a - b);
    const ids = new Uint8Array(slots.length * ID_BYTES);
    slots.forEach((slot, i) => ids.set(this.#ids.get(slot)!, i * ID_BYTES));
    return { indexes: Float64Array.from(slots), count: slots.length, ids, holes: new Float64Array(0) };
  }

  async #write(): Promise<void> {
    const slots = this.#slots;
    if (slots.length === 0) return;
    const ids = await this.#writer.writeChunks(Buffer.concat(this.#chunks), slots.length);
    slots.forEach((slot, i) => this.#ids.set(slot, ids.slice(i * ID_BYTES, (i + 1) * ID_BYTES)));
    this.#slots = [];
    this.#chunks = [];
  }
}
