/**
 * Reading runs from storage: each read is checked (header, CRC), decompressed and cached; readers of
 * the same run at the same time share one read; reads at the same time are bounded.
 */
import { PandoError } from '@pando/common';
import { expandRun } from './codec.ts';
import { isDamage, type DamagedRuns } from './damaged-runs.ts';
import { CachedRun, RunCache, runKey } from './run-cache.ts';
import { idsOfRun } from './segment-directory.ts';
import { chunkBytesOf, decodeRunHeader, isRunBodyIntact } from './segment-format.ts';
import type { SegmentTable } from './segment-table.ts';
import type { SegmentStorage } from './types.ts';

export class RunReader {
  readonly cache: RunCache;
  readonly #storage: SegmentStorage;
  readonly #table: SegmentTable;
  readonly #chunkBytes: number;
  readonly #readsMax: number;
  readonly #damaged: DamagedRuns;
  readonly #loading = new Map<number, Promise<CachedRun>>();
  readonly #waiting: (() => void)[] = [];
  #reads = 0;

  constructor(
    storage: SegmentStorage,
    table: SegmentTable,
    chunkBytes: number,
    cacheBytes: number,
    readsMax: number,
    damaged: DamagedRuns,
  ) {
    this.#storage = storage;
    this.#table = table;
    this.#chunkBytes = chunkBytes;
    this.#readsMax = Math.max(1, readsMax);
    this.#damaged = damaged;
    this.cache = new RunCache(cacheBytes);
  }

  /**
   * The run at a place, from memory or storage.
   * @throws `chunk-missing` when the segment is gone, `chunk-corrupt` when the run is damaged or the device cannot read it, `store-failed`
   */
  load(segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    const key = runKey(segment, runOffset);
    const shared = this.#loading.get(key);
    if (shared !== undefined) return shared;
    const cached = this.cache.get(key);
    if (cached !== undefined) return Promise.resolve(cached);
    const loading = this.#load(key, segment, runOffset, runBytes).finally(() => this.#loading.delete(key));
    this.#loading.set(key, loading);
    return loading;
  }

  /** As `load`, neither from the cache nor into it: for passes over everything. */
  async read(segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    try {
      return await this.#read(segment, runOffset, runBytes);
    } catch (error) {
      if (isDamage(error)) this.#damaged.add(segment, runOffset);
      throw error;
    }
  }

  async #read(segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    const seed = this.#table.get(segment)?.seed;
    if (seed === undefined) throw new PandoError('chunk-missing', `segment ${segment} does not exist`);
    const bytes = new Uint8Array(runBytes);
    const length = await this.#storage.read(segment, bytes, runOffset).catch((error: unknown) => {
      throw asDamage(error, `the run at offset ${runOffset} of segment ${segment} cannot be read`);
    });
    const header = decodeRunHeader(bytes.subarray(0, length), 0, seed, this.#chunkBytes);
    if (header?.runBytes !== runBytes || length < runBytes || !isRunBodyIntact(bytes, 0, header)) {
      throw new PandoError(
        'chunk-corrupt',
        `the run at offset ${runOffset} of segment ${segment} is damaged`,
      );
    }
    const ids = idsOfRun(bytes, 0, header).slice();
    const stored = bytes.subarray(runBytes - header.storedBytes);
    const raw = expandRun(stored, header.codec, header.rawBytes);
    const chunkBytes = chunkBytesOf(header.kind, this.#chunkBytes);
    return new CachedRun(runKey(segment, runOffset), raw, ids, header.firstSlot, chunkBytes);
  }

  async #load(key: number, segment: number, runOffset: number, runBytes: number): Promise<CachedRun> {
    if (this.#reads >= this.#readsMax) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#reads++;
    try {
      const run = await this.read(segment, runOffset, runBytes);
      this.cache.add(run);
      return this.cache.get(key) ?? run;
    } finally {
      // Whoever waits takes over this read's turn.
      const next = this.#waiting.shift();
      if (next === undefined) this.#reads--;
      else next();
    }
  }
}

/** What a device says of sectors that it cannot read, and a file system of what it finds wrong in its own structures. */
const UNREADABLE = new Set(['EIO', 'EBADMSG', 'EUCLEAN']);

/** Such a run is as good as damaged: the others are not concerned, and it heals in the same way. */
function asDamage(error: unknown, what: string): unknown {
  const { code } = ((error as Error | undefined)?.cause ?? {}) as NodeJS.ErrnoException;
  if (code === undefined || !UNREADABLE.has(code)) return error;
  return new PandoError('chunk-corrupt', `${what}: ${code}`, { cause: error });
}
