/**
 * Opening a store: what segments there are, which of them end torn, and what the index lacks.
 *
 * Segments below the checkpoint are sealed and in the index: only their trailers are read. The others are
 * indexed again, ascending, so that of two copies of a chunk the newer one counts. One that is
 * not sealed is cut at its last whole run and sealed. Removals that had begun are finished.
 */
import { fromIoError, ID_BYTES, isHole, PandoError, unreadableCode } from '@pando/common';
import { GrowingBytes } from './growing-bytes.ts';
import { INDEX_BATCH_ENTRIES, OPEN_CONCURRENCY } from './limits.ts';
import { readPlace } from './place.ts';
import {
  holdsRuns,
  idsOfRun,
  indexBatches,
  readDirectory,
  readTrailer,
  scanRuns,
  type SegmentDirectory,
} from './segment-directory.ts';
import {
  decodeFileHeader,
  encodeFooter,
  FILE_HEADER_BYTES_MAX,
  fileHeaderBytes,
  isOfStore,
  RUN_ENTRY_BYTES,
  writeRunEntry,
  type FileHeader,
  type StoreIdentity,
} from './segment-format.ts';
import type { Segment, SegmentTable } from './segment-table.ts';
import { refuseNewerSegment } from './store-of-segments.ts';
import { deleteStale } from './stale-entries.ts';
import { readCheckpoint, readNumbers, writeCheckpoint, writeNumbers } from './store-marks.ts';
import { PLACE_BYTES, type ChunkIndex, type SegmentStorage } from './types.ts';

export interface RecoveryContext extends StoreIdentity {
  readonly storage: SegmentStorage;
  readonly index: ChunkIndex;
  readonly table: SegmentTable;
}

/** Fills the segment table and brings the index up to date. @throws `store-foreign`, `store-newer`, `store-failed` */
export async function recover(context: RecoveryContext): Promise<void> {
  const { storage, index, table } = context;
  const found = await storage.list();
  const checkpoint = await readCheckpoint(index);
  table.reserveBelow(checkpoint.next);
  if ((await index.getMark('checkpoint')) === undefined) {
    // Nothing remembers which numbers are used up: perhaps emptying the index broke off. What names one that is gone must go before it is used again.
    const numbers = new Set(found.map(({ segment }) => segment));
    const isGone = (segment: number): boolean => !numbers.has(segment);
    for (let next = await deleteStale(index, isGone); next !== undefined;)
      next = await deleteStale(index, isGone, next);
  }
  const old = found.filter(({ segment }) => segment < checkpoint.completeBelow);
  for (let first = 0; first < old.length; first += OPEN_CONCURRENCY) {
    const group = old.slice(first, first + OPEN_CONCURRENCY);
    await Promise.all(group.map(({ segment, size }) => registerSealed(context, segment, size)));
  }
  for (const number of await readNumbers(index, 'suspects')) {
    const segment = table.get(number);
    if (segment !== undefined) segment.suspect = true;
  }
  let reindexed = false;
  // Whether store.json may be of another store: then what has no whole run of this one may have some of its own, behind a damaged header.
  let isDoubtful = table.all().some(({ state }) => state === 'damaged');
  // All of them before the first one is cut or written to.
  for (const { segment } of found) {
    if (segment < checkpoint.completeBelow) continue;
    const header = await refuseNewerSegment(storage, segment);
    if (header !== undefined && !(header.segment === segment && isOfStore(header, context)))
      isDoubtful = true;
  }
  const empty: number[] = [];
  const removeEmpty = async (segment: number): Promise<void> => {
    if (isDoubtful) empty.push(segment);
    else await storage.remove(segment);
  };
  for (const { segment, size } of found) {
    if (segment < checkpoint.completeBelow) continue;
    const directory = await wholeDirectory(context, segment, size, removeEmpty);
    if (directory === undefined) continue;
    await reindex(context, table.get(segment)!, directory);
    reindexed = true;
  }
  await refuseIfAllForeign(context);
  for (const segment of empty) await storage.remove(segment);
  if (reindexed) await saveSuspects(index, table);
  const removed = await finishRemovals(context);
  const next = table.nextNumber;
  if (reindexed || next > checkpoint.next) await writeCheckpoint(index, { completeBelow: next, next });
  // Last: what names them must not be taken for another segment of the same number.
  if (removed) await writeNumbers(index, 'removing', []);
}

/** Remembers which segments may hold copies that the index does not name. */
export function saveSuspects(index: ChunkIndex, table: SegmentTable): Promise<void> {
  const suspects = table.all().filter((segment) => segment.suspect);
  return writeNumbers(
    index,
    'suspects',
    suspects.map((segment) => segment.number),
  );
}

async function registerSealed(context: RecoveryContext, number: number, size: number): Promise<void> {
  const segment = context.table.add(number, 'sealed', size);
  const trailer = await readTrailer(context.storage, number, segment.seed, size);
  if (trailer === undefined) {
    // One of a later version has other CRCs: it only looks damaged.
    await refuseNewerSegment(context.storage, number);
    segment.state = 'damaged';
    return;
  }
  segment.slots = trailer.slots;
}

/** The directory of a segment that may or may not be sealed; afterwards it is. Undefined when it held nothing and is gone. */
async function wholeDirectory(
  context: RecoveryContext,
  number: number,
  size: number,
  removeEmpty: (segment: number) => Promise<void>,
): Promise<SegmentDirectory | undefined> {
  const foreign = await foreignHeader(context, number);
  const segment = context.table.add(number, 'sealed', size);
  if (foreign !== undefined) {
    // Not ours to cut, to write to or to remove.
    segment.state = 'damaged';
    return undefined;
  }
  const trailer = await readTrailer(context.storage, number, segment.seed, size);
  if (trailer !== undefined) {
    const directory = await readDirectory(context.storage, number, segment.seed, size).catch(
      (error: unknown) => {
        if (error instanceof PandoError && error.code === 'segment-corrupt') return undefined;
        throw error;
      },
    );
    if (directory !== undefined) {
      // A killed process may have left the footer in the page cache only, and the checkpoint that follows says for good
      // that this segment is sealed. What stands before the footer was synced before that was written.
      await context.storage.rewrite(number, trailer.footerOffset).catch((error: unknown) => {
        throw fromIoError(error, `syncing segment ${number}`, 'store-failed');
      });
      segment.slots = trailer.slots;
      return directory;
    }
  }
  return sealTorn(context, segment, size, removeEmpty);
}

/**
 * Cuts a segment behind its last whole run and writes the footer that it lacks. A damaged run before that
 * one (pages that reached the disk out of order, or rot) is left out of the footer.
 */
async function sealTorn(
  context: RecoveryContext,
  segment: Segment,
  size: number,
  removeEmpty: (segment: number) => Promise<void>,
): Promise<SegmentDirectory | undefined> {
  const { storage, table } = context;
  const { directory, end } = await scanDirectory(context, segment, size);
  segment.slots = directory.ids.byteLength / ID_BYTES;
  const isEmpty = segment.slots === 0;
  if (isEmpty && (await holdsChunksOfNobody(context, segment.number, size))) {
    segment.state = 'damaged';
    return undefined;
  }
  if (isEmpty || (await isUnsynced(context, segment, directory))) {
    if (isEmpty) await removeEmpty(segment.number);
    else await storage.remove(segment.number);
    table.remove(segment.number);
    return undefined;
  }
  const footer = encodeFooter(segment.number, segment.seed, end, directory.runTable, directory.ids);
  try {
    await storage.truncate(segment.number, end);
    await storage.rewrite(segment.number, 0); // as when sealing: what a killed process wrote may not be on the disk yet
    const writer = await storage.reopen(segment.number);
    try {
      await writer.append([footer]);
      await writer.sync();
    } finally {
      await writer.close();
    }
  } catch (error) {
    throw fromIoError(error, `sealing segment ${segment.number}`, 'store-failed');
  }
  segment.bytes = end + footer.byteLength;
  return directory;
}

/**
 * Whether a segment without a footer was never synced: its header is blank, and the index, which is not empty, names none
 * of its chunks. A header that rot has blanked takes no chunks along.
 */
async function isUnsynced(
  context: RecoveryContext,
  { number }: Segment,
  { ids }: SegmentDirectory,
): Promise<boolean> {
  const { storage, index } = context;
  const header = new Uint8Array(fileHeaderBytes(context));
  await storage.read(number, header, 0);
  if (header.some((byte) => byte !== 0) || (await readCheckpoint(index)).next === 1) return false;
  for (let at = 0; at < ids.byteLength; at += ID_BYTES) {
    const value = isHole(ids, at) ? undefined : index.get(ids, at);
    if (value !== undefined && readPlace(value).segment === number) return false;
  }
  return true;
}

/** The directory of a segment as its whole runs tell it, and where they end. */
export async function scanDirectory(
  context: Pick<RecoveryContext, 'storage' | 'chunkBytes'>,
  segment: Segment,
  size: number,
): Promise<{ directory: SegmentDirectory; end: number }> {
  const runTable = new GrowingBytes();
  const ids = new GrowingBytes();
  const entry = new Uint8Array(RUN_ENTRY_BYTES);
  const { number, seed, runsAt } = segment;
  const end = await scanRuns(
    context.storage,
    number,
    seed,
    context.chunkBytes,
    runsAt,
    size,
    (bytes, at, header, offset) => {
      writeRunEntry(entry, 0, offset, header);
      runTable.append(entry);
      ids.append(new Uint8Array(header.firstSlot * ID_BYTES - ids.length)); // slots of a damaged run before it
      ids.append(idsOfRun(bytes, at, header));
    },
  );
  return { directory: { runTable: runTable.bytes, ids: ids.bytes }, end };
}

/**
 * What the header of a segment says when it is whole and of another segment or store, in words. One that is damaged or blank
 * is not needed: what it says is known, and runs carry what proves that they belong here.
 */
async function foreignHeader(context: RecoveryContext, number: number): Promise<string | undefined> {
  const header = await headerOf(context, number);
  return header === undefined ? undefined : foreignWords(context, number, header);
}

/**
 * Whether a segment in which no run is of this store holds chunks all the same, behind a header that is damaged or blank: then store.json may be
 * of another store, and nothing else would say so. A header is synced before the first run, so no crash leaves that.
 */
async function holdsChunksOfNobody(context: RecoveryContext, number: number, size: number): Promise<boolean> {
  return (await headerOf(context, number)) === undefined && holdsRuns(context.storage, number, size);
}

/** Undefined when it is damaged. */
async function headerOf({ storage }: RecoveryContext, number: number): Promise<FileHeader | undefined> {
  const bytes = new Uint8Array(FILE_HEADER_BYTES_MAX);
  await storage.read(number, bytes, 0);
  return decodeFileHeader(bytes);
}

/** Undefined when the header is that of this segment of this store. */
function foreignWords(context: RecoveryContext, number: number, header: FileHeader): string | undefined {
  if (isOfStore(header, context) && header.segment === number) return undefined;
  const isSame = isOfStore({ ...header, hashKey: context.hashKey }, context);
  const key = !isSame
    ? ''
    : header.hashKey === undefined
      ? ', without a key of ids'
      : ', with another key of ids';
  return `segment ${header.segment} of store ${idText(header.storeId)}${key}`;
}

/**
 * A single segment that belongs elsewhere is damage to that one; when none belongs here, store.json does not. Of one whose header is damaged as
 * well its chunks tell; without any, it says nothing for either.
 */
async function refuseIfAllForeign(context: RecoveryContext): Promise<void> {
  let found: { readonly number: number; readonly says: string } | undefined;
  for (const segment of context.table.all()) {
    if (segment.state !== 'damaged') return;
    const says = await foreignSegment(context, segment);
    if (says === 'own') return;
    if (says !== undefined) found = { number: segment.number, says };
  }
  if (found === undefined) return;
  throw new PandoError(
    'store-foreign',
    `segment ${found.number} ${found.says}, and no segment is of this store, ${idText(context.storeId)}: they were copied here, or store.json was`,
  );
}

/** Why a damaged segment is not of this store, in words; `own` when it is; undefined when nothing tells. */
async function foreignSegment(context: RecoveryContext, segment: Segment): Promise<string | undefined> {
  const { number, bytes } = segment;
  const header = await headerOf(context, number);
  if (header !== undefined) {
    const words = foreignWords(context, number, header);
    return words === undefined ? 'own' : `says that it is ${words}`;
  }
  try {
    const { directory } = await scanDirectory(context, segment, bytes);
    if (directory.ids.byteLength > 0) return 'own';
    if (!(await holdsRuns(context.storage, number, bytes))) return undefined;
  } catch (error) {
    if (unreadableCode(error) === undefined) throw error;
    return undefined;
  }
  return 'has a damaged header and holds chunks that this store cannot have written';
}

function idText(storeId: Uint8Array): string {
  return Buffer.from(storeId).toString('hex');
}

/** Puts all chunks of a segment into the index, over older places; notes who then holds copies that do not count. */
export async function reindex(
  context: RecoveryContext,
  segment: Segment,
  directory: SegmentDirectory,
): Promise<void> {
  const { index, table } = context;
  const runs = directory.runTable.byteLength / RUN_ENTRY_BYTES;
  for (const batch of indexBatches(segment.number, directory, 0, runs, INDEX_BATCH_ENTRIES)) {
    for (let i = 0; i < batch.count; i++) {
      const value = index.get(batch.ids, i * ID_BYTES);
      if (value === undefined) continue;
      const before = readPlace(value);
      const slot = readPlace(batch.places, i * PLACE_BYTES).slot;
      if (before.segment === segment.number && before.slot === slot) continue;
      // A newer one comes in its turn, and counts then.
      const other = before.segment <= segment.number ? table.get(before.segment) : undefined;
      if (other !== undefined) other.suspect = true;
    }
    await index.write(batch, false);
  }
}

/**
 * Segments whose removal had begun are gone when it resolves; their index entries stay, see stale-entries.ts. Resolves to whether
 * there were any.
 */
async function finishRemovals({ storage, index, table }: RecoveryContext): Promise<boolean> {
  const numbers = await readNumbers(index, 'removing');
  for (const number of numbers) {
    table.reserveBelow(number + 1);
    table.remove(number);
    // One that is gone already may come back: a process that was killed has not made its removal durable.
    await storage.remove(number);
  }
  return numbers.length > 0;
}
