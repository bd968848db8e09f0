/**
 * The end of the store where segments are written: append, flush, seal.
 *
 * Appends go one after another into the open segment. A flush syncs what was appended and then writes it
 * to the index; one is in flight, the next one covers everybody who asked meanwhile. A full segment is
 * sealed beside the appends to its successor. Never is anything in the index before it is durable.
 *
 * Failures: an append that fails is cut off again and the store goes on; where even cutting fails, the
 * segment is given up as far as it was not in the index (`stuck`), and sealing it is tried again later.
 * A sync that fails is final: what the disk then holds of the segment is unknown for good.
 */
import { fromIoError, ID_BYTES, isPandoError, PandoError } from '@pando/common';
import { NODE_BYTES } from '@pando/tree';
import type { DamagedRuns } from './damaged-runs.ts';
import type { FreshChunks } from './fresh-chunks.ts';
import { INDEX_BATCH_ENTRIES, RUN_RAW_BYTES, type ChunkStoreLimits } from './limits.ts';
import { idsOfRun, indexBatches, runEntryAt, type SegmentDirectory } from './segment-directory.ts';
import {
  decodeRunHeader,
  encodeFileHeader,
  encodeFooter,
  fileHeaderBytes,
  placeRun,
  RUN_ENTRY_BYTES,
  TRAILER_BYTES,
  writeRunEntry,
  type StoreIdentity,
} from './segment-format.ts';
import { SegmentContents, type Segment, type SegmentTable } from './segment-table.ts';
import { SerialQueue } from './serial-queue.ts';
import type { StoreCounters } from './store-counters.ts';
import { writeCheckpoint } from './store-marks.ts';
import type { ChunkIndex, SegmentStorage, SegmentWriter } from './types.ts';

/** Ids of one run: nodes and the smallest data chunks have the same size. */
const RUN_IDS_BYTES_MAX = (RUN_RAW_BYTES / NODE_BYTES) * ID_BYTES;

export interface SegmentLogOptions extends StoreIdentity {
  readonly storage: SegmentStorage;
  readonly index: ChunkIndex;
  /** All changes of the index go through it. */
  readonly indexQueue: SerialQueue;
  readonly table: SegmentTable;
  readonly fresh: FreshChunks;
  readonly damaged: DamagedRuns;
  readonly limits: ChunkStoreLimits;
  readonly counters: StoreCounters;
  /** Something appended or about to be is lost: called in the turn in which it goes. */
  readonly onAppendFailed: (error: PandoError) => void;
}

export class SegmentLog {
  readonly #options: SegmentLogOptions;
  readonly #appends = new SerialQueue();
  /** Segments that are being sealed, with the end of the attempt. */
  readonly #sealing = new Map<Segment, Promise<void>>();
  readonly #stuck = new Set<Segment>();
  #open: Segment | undefined;
  #failed: PandoError | undefined;
  #pendingBytes = 0;
  #flushing: Promise<void> | undefined;
  #nextFlush: Promise<void> | undefined;
  #checkpointed: number;

  constructor(options: SegmentLogOptions) {
    this.#options = options;
    this.#checkpointed = options.table.completeBelow();
  }

  /** Set for good after a sync has failed. */
  get failure(): PandoError | undefined {
    return this.#failed;
  }

  /** @throws `store-failed` after a sync has failed */
  throwIfFailed(): void {
    if (this.#failed !== undefined) throw this.#failed;
  }

  /**
   * Appends `runs` runs that stand one after another in `output`, and makes their chunks pending. Neither
   * durable nor in the index when it resolves, but readable. `output` must not change until then.
   * @throws `store-full`, `store-failed`
   */
  append(output: Uint8Array, runs: Uint32Array, runCount: number): Promise<void> {
    return this.#appends.run(() => this.#append(output, runs, runCount));
  }

  /** Everything appended before the call is durable and in the index when it resolves. */
  flush(): Promise<void> {
    if (this.#nextFlush !== undefined) return this.#nextFlush;
    if (this.#flushing === undefined) return this.#startFlush();
    this.#nextFlush = this.#flushing.then(
      () => this.#startFlush(),
      () => this.#startFlush(),
    );
    return this.#nextFlush;
  }

  /** Seals the open segment and all that are stuck. */
  async seal(): Promise<void> {
    await this.#appends.run(() => {
      if (this.#open !== undefined) this.#startSeal(this.#open);
      return Promise.resolve();
    });
    for (const segment of [...this.#stuck]) this.#startSeal(segment);
    await Promise.all(this.#sealing.values());
    this.throwIfFailed();
  }

  /**
   * Seals what can be sealed and closes every file. Rejects with what kept it from sealing, unless that is a full disk: what was promised is
   * durable, and opening the store seals it.
   */
  async close(): Promise<void> {
    try {
      if (this.#failed === undefined) await this.seal();
    } catch (error) {
      if (!isPandoError(error, 'store-full')) throw error;
    } finally {
      await Promise.allSettled(this.#sealing.values());
      for (const segment of this.#options.table.all()) await segment.contents?.writer?.close();
    }
  }

  async #append(output: Uint8Array, runs: Uint32Array, runCount: number): Promise<void> {
    let at = 0;
    for (let run = 0; run < runCount;) {
      this.throwIfFailed();
      await this.#waitForRoom();
      const segment = await this.#segmentFor(runs[run]!);
      const [taken, bytes] = this.#place(segment, output, at, runs, run, runCount);
      const part = output.subarray(at, at + bytes);
      try {
        await segment.contents!.writer!.append([part]);
        this.#options.counters.segmentWrittenBytes += bytes;
      } catch (error) {
        const wrapped = fromIoError(error, `appending to segment ${segment.number}`, 'store-failed');
        this.#options.onAppendFailed(wrapped);
        // Not awaited: whoever waits for this append hears of it before anything new can count on it.
        void this.#repair(segment, wrapped);
        throw wrapped;
      }
      this.#record(segment, part, taken);
      at += bytes;
      run += taken;
    }
  }

  /** Waits until pending chunks are few enough; starts a flush early so that it seldom comes to that. */
  async #waitForRoom(): Promise<void> {
    const max = this.#options.limits.pendingBytesMax;
    if (this.#pendingBytes > max) await this.flush();
    else if (this.#pendingBytes > max / 2 && this.#flushing === undefined) {
      // What goes wrong here goes wrong again in the flush that somebody waits for.
      this.flush().catch(() => undefined);
    }
  }

  async #segmentFor(runBytes: number): Promise<Segment> {
    const open = this.#open;
    if (open !== undefined && open.contents!.runs > 0 && !this.#fits(open, runBytes, 1))
      this.#startSeal(open);
    await this.#open?.contents?.repairing;
    if (this.#open !== undefined) return this.#open;
    const { storage, table } = this.#options;
    const number = table.reserve(); // used up also when creating it fails: something may be there then
    let writer: SegmentWriter | undefined;
    try {
      writer = await storage.create(number);
      await writer.append([encodeFileHeader(this.#options, number)]);
      // So that runs are never found behind a blank header but where something has blanked it.
      await this.#sync(writer);
    } catch (error) {
      await writer?.close().catch(() => undefined);
      await storage.remove(number).catch(() => undefined); // a segment without runs; opening the store removes it too
      const wrapped = fromIoError(error, `creating segment ${number}`, 'store-failed');
      this.#options.onAppendFailed(wrapped);
      throw wrapped;
    }
    const segment = table.add(number, 'open', fileHeaderBytes(this.#options));
    segment.contents = new SegmentContents();
    segment.contents.writer = writer;
    this.#open = segment;
    return segment;
  }

  /** Whether so many more bytes of so many runs leave room for the footer that they then need. */
  #fits(segment: Segment, bytes: number, runs: number): boolean {
    const contents = segment.contents!;
    const idsBytes = contents.ids.length + runs * RUN_IDS_BYTES_MAX;
    const footerBytes = contents.runTable.length + runs * RUN_ENTRY_BYTES + idsBytes + TRAILER_BYTES;
    return segment.bytes + bytes + footerBytes <= this.#options.limits.segmentBytesMax;
  }

  /** Gives as many runs as fit (at least one) their places; returns how many, and their bytes. */
  #place(
    segment: Segment,
    output: Uint8Array,
    at: number,
    runs: Uint32Array,
    firstRun: number,
    runCount: number,
  ): [taken: number, bytes: number] {
    let bytes = 0;
    let run = firstRun;
    let slot = segment.slots;
    while (
      run < runCount &&
      (run === firstRun || this.#fits(segment, bytes + runs[run]!, run + 1 - firstRun))
    ) {
      placeRun(output, at + bytes, slot, segment.seed);
      slot += output[at + bytes + 6]! | (output[at + bytes + 7]! << 8);
      bytes += runs[run++]!;
    }
    return [run - firstRun, bytes];
  }

  /** Enters appended runs into the segment's contents and makes their chunks pending. */
  #record(segment: Segment, part: Uint8Array, runs: number): void {
    const contents = segment.contents!;
    const entry = new Uint8Array(RUN_ENTRY_BYTES);
    let at = 0;
    for (let run = 0; run < runs; run++) {
      const header = decodeRunHeader(part, at, segment.seed, this.#options.chunkBytes)!;
      const offset = segment.bytes + at;
      const ids = idsOfRun(part, at, header);
      writeRunEntry(entry, 0, offset, header);
      contents.runTable.append(entry);
      contents.ids.append(ids);
      for (let k = 0; k < header.count; k++) {
        const slot = segment.slots + k;
        this.#options.fresh.setPlace(ids, k * ID_BYTES, segment.number, offset, header.runBytes, slot);
      }
      segment.slots += header.count;
      at += header.runBytes;
    }
    segment.bytes += at;
    this.#pendingBytes += at;
  }

  #startFlush(): Promise<void> {
    this.#nextFlush = undefined;
    const flushing = this.#flush().finally(() => {
      if (this.#flushing === flushing) this.#flushing = undefined;
    });
    this.#flushing = flushing;
    return flushing;
  }

  async #flush(): Promise<void> {
    this.throwIfFailed();
    const unsealed = [...this.#sealing.keys(), ...this.#stuck];
    if (this.#open !== undefined) unsealed.push(this.#open);
    for (const segment of unsealed) await this.#settle(segment);
    this.throwIfFailed();
  }

  /** Makes what a segment holds durable and indexed, by waiting for its sealing or by itself. */
  async #settle(segment: Segment): Promise<void> {
    await segment.contents?.repairing;
    await this.#sealing.get(segment)?.catch(() => undefined); // if that failed, the footer did; the data may not have
    const contents = segment.contents;
    if (contents === undefined || contents.indexedRuns === contents.runs || contents.writer === undefined)
      return;
    await this.#syncAndIndex(contents, segment);
  }

  async #syncAndIndex(contents: SegmentContents, segment: Segment): Promise<void> {
    const runs = contents.runs;
    contents.syncing = this.#sync(contents.writer!);
    await contents.syncing;
    await this.#indexRuns(segment, contents, runs);
  }

  async #sync(writer: SegmentWriter): Promise<void> {
    this.throwIfFailed();
    const began = performance.now();
    try {
      await writer.sync();
      this.#options.counters.segmentSyncTimes.record(performance.now() - began);
    } catch (error) {
      this.#failed ??= new PandoError(
        'store-failed',
        `syncing segment ${writer.segment} failed; writing has stopped`,
        {
          cause: error,
        },
      );
      throw this.#failed;
    }
  }

  /** Writes the entries of runs that are durable to the index; then their chunks are no longer pending. */
  #indexRuns(segment: Segment, contents: SegmentContents, toRun: number): Promise<void> {
    const { index, indexQueue, fresh, damaged } = this.#options;
    return indexQueue.run(async () => {
      if (contents.indexedRuns >= toRun) return;
      await damaged.saveSuspects(index);
      const directory: SegmentDirectory = { runTable: contents.runTable.bytes, ids: contents.ids.bytes };
      for (const batch of indexBatches(
        segment.number,
        directory,
        contents.indexedRuns,
        toRun,
        INDEX_BATCH_ENTRIES,
      )) {
        await index.write(batch, false);
      }
      for (let run = contents.indexedRuns; run < toRun; run++) {
        const entry = runEntryAt(contents.runTable.bytes, run);
        for (let slot = entry.firstSlot; slot < entry.firstSlot + entry.count; slot++) {
          fresh.removePlaced(directory.ids, slot * ID_BYTES, segment.number, slot);
        }
        this.#pendingBytes -= entry.bytes;
      }
      contents.indexedRuns = toRun;
    });
  }

  #startSeal(segment: Segment): void {
    if (this.#open === segment) this.#open = undefined;
    if (this.#sealing.has(segment)) return;
    this.#stuck.delete(segment);
    segment.state = 'sealing';
    const sealing = this.#seal(segment).finally(() => this.#sealing.delete(segment));
    sealing.catch(() => undefined); // whoever needs it looks at the promise, the state or the failure
    this.#sealing.set(segment, sealing);
  }

  async #seal(segment: Segment): Promise<void> {
    const contents = segment.contents!;
    try {
      await contents.repairing;
      await contents.syncing?.catch(() => undefined);
      this.throwIfFailed();
      if (contents.runs === 0) {
        await this.#removeEmpty(segment);
        return;
      }
      if (contents.writer === undefined) {
        contents.writer = await this.#reopen(segment);
        contents.hasFooter = false;
      }
      const writer = contents.writer;
      const footer = encodeFooter(
        segment.number,
        segment.seed,
        segment.bytes,
        contents.runTable.bytes,
        contents.ids.bytes,
      );
      // A footer says that the runs before it are whole: after a power failure it may be there without what was not synced.
      if (contents.indexedRuns < contents.runs) await this.#sync(writer);
      // It may be there from a try before, which the index had no room for: a second one behind it would make neither whole.
      if (!contents.hasFooter) await this.#appendFooter(segment, contents, writer, footer);
      contents.hasFooter = true;
      await this.#sync(writer);
      await this.#indexRuns(segment, contents, contents.runs);
      await writer.close();
      segment.bytes += footer.byteLength;
      this.#options.counters.segmentWrittenBytes += footer.byteLength;
      segment.contents = undefined;
      segment.state = 'sealed';
    } catch (error) {
      if (segment.state === 'sealing') segment.state = 'stuck';
      if (segment.contents !== undefined) this.#stuck.add(segment);
      throw fromIoError(error, `sealing segment ${segment.number}`, 'store-failed');
    }
    await this.#checkpoint();
    // What did not work before may work now.
    for (const stuck of [...this.#stuck]) this.#startSeal(stuck);
  }

  async #appendFooter(
    segment: Segment,
    contents: SegmentContents,
    writer: SegmentWriter,
    footer: Uint8Array,
  ): Promise<void> {
    try {
      await writer.append([footer]);
    } catch (error) {
      await this.#repair(segment, fromIoError(error, `sealing segment ${segment.number}`, 'store-failed'));
      // The footer can wait; what flushes wait for cannot.
      if (contents.writer !== undefined) await this.#syncAndIndex(contents, segment);
      throw error;
    }
  }

  async #removeEmpty(segment: Segment): Promise<void> {
    await segment.contents?.writer?.close();
    await this.#options.storage.remove(segment.number);
    segment.contents = undefined;
    this.#options.table.remove(segment.number);
  }

  /** Below what number everything is in the index: where opening the store starts to look. */
  #checkpoint(): Promise<void> {
    const { index, indexQueue, table } = this.#options;
    return indexQueue.run(async () => {
      const completeBelow = table.completeBelow();
      if (completeBelow <= this.#checkpointed) return;
      await writeCheckpoint(index, { completeBelow, next: table.nextNumber });
      this.#checkpointed = completeBelow;
    });
  }

  async #reopen(segment: Segment): Promise<SegmentWriter> {
    await this.#options.storage.truncate(segment.number, segment.bytes);
    return this.#options.storage.reopen(segment.number);
  }

  /** Cuts off what a failed append left behind. Never rejects. */
  #repair(segment: Segment, cause: PandoError): Promise<void> {
    const contents = segment.contents!;
    contents.repairing = this.#cut(segment, contents, cause).finally(() => {
      contents.repairing = undefined;
    });
    return contents.repairing;
  }

  async #cut(segment: Segment, contents: SegmentContents, cause: PandoError): Promise<void> {
    await contents.syncing?.catch(() => undefined);
    const writer = contents.writer;
    contents.writer = undefined;
    await writer?.close().catch(() => undefined);
    try {
      contents.writer = await this.#reopen(segment);
    } catch {
      await this.#options.indexQueue.run(() => {
        this.#giveUp(segment, contents, cause);
        return Promise.resolve();
      });
    }
  }

  /** Forgets what of a segment is not in the index, and tells every writer that may count on it. */
  #giveUp(segment: Segment, contents: SegmentContents, cause: PandoError): void {
    this.#options.onAppendFailed(cause);
    const runs = contents.runs;
    for (let run = contents.indexedRuns; run < runs; run++) {
      const entry = runEntryAt(contents.runTable.bytes, run);
      for (let slot = entry.firstSlot; slot < entry.firstSlot + entry.count; slot++) {
        this.#options.fresh.removePlaced(contents.ids.bytes, slot * ID_BYTES, segment.number, slot);
      }
      if (run === contents.indexedRuns) {
        segment.bytes = entry.offset;
        segment.slots = entry.firstSlot;
      }
      this.#pendingBytes -= entry.bytes;
    }
    contents.runTable.cut(contents.indexedRuns * RUN_ENTRY_BYTES);
    contents.ids.cut(segment.slots * ID_BYTES);
    if (this.#open === segment) this.#open = undefined;
    if (segment.state === 'open') segment.state = 'stuck';
    this.#stuck.add(segment);
  }
}
