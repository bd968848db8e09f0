/** What the tests of the mirror share: a clock that stands until it is told, and what a catalog and its newest mirror hold. */
import { MemoryCatalog, type Catalog } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import type { Clock } from '@pando/common';
import { findAnchors, restoreCatalog } from '../index.ts';
import { isMirrored } from '../state.ts';

export const STORE_ID = new Uint8Array(16).fill(1);

/** Time goes on when `advance` is called, and not before. */
export class StillClock implements Clock {
  #now = 0;
  readonly #sleepers = new Set<{ readonly until: number; readonly wake: () => void }>();

  now(): number {
    return 1_700_000_000_000 + this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const sleeper = { until: this.#now + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers.delete(sleeper);
        reject(signal.reason as Error);
      });
    });
  }

  /** Lets what is due happen, at its time, and everything that follows from it. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await turns();
    for (;;) {
      const next = [...this.#sleepers].sort((a, b) => a.until - b.until)[0];
      if (next === undefined || next.until > end) break;
      this.#sleepers.delete(next);
      this.#now = Math.max(this.#now, next.until);
      next.wake();
      await turns();
    }
    this.#now = end;
    await turns();
  }
}

/** Long enough for whatever needs no time to be done. */
async function turns(): Promise<void> {
  for (let i = 0; i < 60; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** All records that are mirrored, length and beginning of their stored form, CRC first. */
export async function contentsOf(catalog: Catalog): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const snapshot = catalog.snapshot();
  try {
    for await (const part of snapshot.stored()) {
      for (const { table, key, value } of part)
        if (isMirrored(table))
          found[`${table} ${key}`] =
            `${value.byteLength}: ${Buffer.from(value.subarray(0, 8)).toString('hex')}`;
    }
  } finally {
    await snapshot.close();
  }
  return found;
}

/** What a rebuild would find: the newest mirror that can be read. */
export async function mirrored(store: ChunkStore): Promise<Record<string, string> | undefined> {
  const [anchor] = await findAnchors(store, STORE_ID);
  if (anchor === undefined) return undefined;
  const catalog = new MemoryCatalog();
  await restoreCatalog(store, anchor, catalog, anchor.epoch + 1);
  return contentsOf(catalog);
}
