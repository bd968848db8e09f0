import { MemoryCatalog, type Catalog, type CatalogOperation } from '@pando/catalog';
import { createMemoryChunkStore, type ChunkStore } from '@pando/chunk-store';
import { PandoError } from '@pando/common';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { collect } from '@pando/gc';
import { describe, expect, it } from 'vitest';
import {
  CHANGE_MS_MAX,
  openCatalogMirror,
  PAUSE_MS,
  type CatalogMirror,
  type CatalogMirrorOptions,
} from './catalog-mirror.ts';
import { findAnchors, restoreCatalog } from './restore.ts';
import { CHANGE_TABLE, PAGE_TABLE, STATE_TABLE } from './state.ts';
import { contentsOf, mirrored, StillClock, STORE_ID } from './testing/test-mirror.ts';

const CHUNK = 4096;
const KiB = 1024;

interface World {
  readonly inner: FailingCatalog;
  readonly store: ChunkStore;
  readonly clock: StillClock;
  open(options?: Pick<CatalogMirrorOptions, 'isDamaged'>): Promise<CatalogMirror>;
}

/** A catalog whose commits can be made to fail, to wait, and to be none any more. */
class FailingCatalog extends MemoryCatalog {
  fail: PandoError | undefined;
  gate: Promise<undefined> | undefined;
  commits = 0;

  override async commit(operations: readonly CatalogOperation[]): Promise<void> {
    if (this.fail !== undefined) throw this.fail;
    await this.gate;
    this.commits++;
    await super.commit(operations);
  }
}

async function world(limits: Parameters<typeof createMemoryChunkStore>[1] = {}): Promise<World> {
  const inner = new FailingCatalog();
  const clock = new StillClock();
  const store = await createMemoryChunkStore(CHUNK, limits);
  const open: World['open'] = (options = {}) =>
    openCatalogMirror({ catalog: inner, store, clock, storeId: STORE_ID, ...options });
  return { inner, store, clock, open };
}

function put(table: string, key: string, text: string): CatalogOperation {
  return { type: 'put', table, key, value: { version: 1, text } };
}

const noRoots = (): AsyncIterable<never> => (async function* () {})();
const pause = (): Promise<unknown> => new Promise((resolve) => setTimeout(resolve, 20));
const full = new PandoError('store-full', 'no room');

async function records(catalog: Catalog, count: number): Promise<void> {
  for (let first = 0; first < count; first += 1000) {
    const keys = Array.from({ length: Math.min(1000, count - first) }, (_, i) => first + i);
    await catalog.commit(keys.map((n) => put('disk', String(n).padStart(12, '0'), 'x'.repeat(100))));
  }
}

describe('the mirror of a catalog', () => {
  it('begins with what is there, and follows', async () => {
    const { inner, store, clock, open } = await world();
    await inner.commit([put('vm', 'a', '1'), put('vm', 'b', '2')]);
    const mirror = await open();
    await clock.advance(1);
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    expect(mirror.at).toBe(clock.now() - 1);
    await mirror.catalog.commit([put('vm', 'c', '3'), { type: 'delete', table: 'vm', key: 'a' }]);
    await mirror.cover();
    const found = await mirrored(store);
    expect(Object.keys(found!)).toEqual(['vm b', 'vm c']);
    expect(found).toEqual(await contentsOf(inner));
    await mirror.close();
  });

  it('mirrors a change within ten seconds, several with one mirror, and nothing when nothing changed', async () => {
    const { store, clock, open } = await world();
    const mirror = await open();
    await clock.advance(60_000);
    const before = (await findAnchors(store, STORE_ID)).length;
    await mirror.catalog.commit([put('vm', 'a', '1')]);
    await clock.advance(CHANGE_MS_MAX - 10);
    await mirror.catalog.commit([put('vm', 'b', '1')]);
    expect(await findAnchors(store, STORE_ID)).toHaveLength(before);
    await clock.advance(20);
    expect(await findAnchors(store, STORE_ID)).toHaveLength(before + 1);
    expect(Object.keys((await mirrored(store))!)).toEqual(['vm a', 'vm b']);
    await clock.advance(100_000);
    expect(await findAnchors(store, STORE_ID)).toHaveLength(before + 1);
    await mirror.close();
    expect(await findAnchors(store, STORE_ID)).toHaveLength(before + 1);
  });

  it('does not mirror what is derived', async () => {
    const { store, open } = await world();
    const mirror = await open();
    await mirror.cover();
    await mirror.catalog.commit([put('verification', 'full', 'x'), put('~other', 'x', 'x')]);
    await mirror.catalog.commit([put('vm', 'a', 'x')]);
    await mirror.cover();
    expect(Object.keys((await mirrored(store))!)).toEqual(['vm a']);
    await mirror.close();
  });

  it('writes what one change needs, however many records there are', async () => {
    const written: number[] = [];
    for (const count of [1_000, 10_000]) {
      const { inner, store, open } = await world();
      await records(inner, count);
      const mirror = await open();
      await mirror.cover();
      const before = await store.stats();
      await mirror.catalog.commit([put('disk', '000000000500', 'changed')]);
      await mirror.cover();
      written.push((await store.stats()).segmentBytes - before.segmentBytes);
      expect(await mirrored(store)).toEqual(await contentsOf(inner));
      await mirror.close();
    }
    // One page, one path of nodes (two levels more at most), one anchor.
    expect(written[0]).toBeLessThan(12 * KiB);
    expect(written[1]).toBeLessThan(16 * KiB);
  });

  it('takes what is left of a process that was killed', async () => {
    const { inner, store, open } = await world();
    const first = await open();
    await first.cover();
    await first.catalog.commit([put('vm', 'a', '1')]);
    const second = await open(); // the first one is gone, and has said nothing
    await second.cover();
    expect(Object.keys((await mirrored(store))!)).toEqual(['vm a']);
    expect(await inner.list(CHANGE_TABLE)).toEqual([]);
    const epochs = (await findAnchors(store, STORE_ID)).map(({ epoch, count }) => [epoch, count]);
    expect(epochs).toEqual([
      [2, 1],
      [1, 1],
    ]);
    await second.close();
  });

  it('includes every commit that ended before it was asked, and loses none that was under way', async () => {
    const { inner, store, open } = await world();
    const mirror = await open();
    await mirror.cover();
    const gate = Promise.withResolvers<undefined>();
    inner.gate = gate.promise;
    const late = mirror.catalog.commit([put('vm', 'late', '1')]);
    inner.gate = undefined;
    await mirror.catalog.commit([put('vm', 'early', '1')]);
    const covered = mirror.cover();
    await pause();
    gate.resolve(undefined);
    await Promise.all([late, covered]);
    await mirror.cover();
    expect(Object.keys((await mirrored(store))!)).toEqual(['vm early', 'vm late']);
    await mirror.close();
  });
});

it('a record that changes before and after the snapshot of a mirror is mirrored again', async () => {
  const { inner, store, open } = await world();
  const mirror = await open();
  await mirror.cover();
  const [begin, end] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
  inner.gate = begin.promise;
  const before = mirror.catalog.commit([put('vm', 'other', '1')]);
  inner.gate = undefined;
  const covered = mirror.cover();
  await pause(); // it has begun, and waits for the commit before its snapshot
  await mirror.catalog.commit([put('vm', 'a', '1')]);
  inner.gate = end.promise;
  begin.resolve(undefined);
  await before;
  await pause(); // what it has written is about to be recorded
  inner.gate = undefined;
  await mirror.catalog.commit([put('vm', 'a', 'longer than before')]);
  end.resolve(undefined);
  await covered;
  await mirror.cover();
  expect(await mirrored(store)).toEqual(await contentsOf(inner));
  await mirror.close();
});

it('who asks about a commit that a mirror does not take is answered by the next one, though it waits for others before its snapshot', async () => {
  const { inner, store, open } = await world();
  await records(inner, 200);
  const mirror = await open();
  await mirror.cover();
  const gate = Promise.withResolvers<undefined>();
  inner.gate = gate.promise;
  const slow = mirror.catalog.commit([put('disk', '000000000001', 'slow')]);
  inner.gate = undefined;
  const first = mirror.cover();
  await pause(); // it has begun, and waits for the slow one
  await mirror.catalog.commit([put('disk', '000000000199', 'another page')]);
  expect(mirror.release(10, false)).toBe(0);
  const second = mirror.cover();
  gate.resolve(undefined);
  await Promise.all([slow, first]);
  expect(mirror.release(10, false)).toBe(0);
  await second;
  expect(await mirrored(store)).toEqual(await contentsOf(inner));
  expect(mirror.release(10, false)).toBe(10);
  await mirror.close();
});

describe('the log', () => {
  it('is released as far as a durable mirror covers', async () => {
    const { inner, clock, open } = await world();
    const mirror = await open();
    await clock.advance(PAUSE_MS);
    let told = 0;
    mirror.onRelease(() => told++);
    expect(mirror.release(10, false)).toBe(10); // nothing has changed since
    await clock.advance(100);
    await mirror.catalog.commit([put('disk', '1', 'root')]);
    expect(mirror.release(20, false)).toBe(10);
    // A mirror that is under way was begun before the next commit, and covers what was asked before that.
    const gate = Promise.withResolvers<undefined>();
    inner.gate = gate.promise;
    await clock.advance(10);
    inner.gate = undefined;
    const second = mirror.catalog.commit([put('disk', '1', 'newer root')]);
    await second;
    expect(mirror.release(30, false)).toBe(10);
    gate.resolve(undefined);
    await clock.advance(PAUSE_MS - 20);
    expect(told).toBeGreaterThan(0);
    expect(mirror.release(30, false)).toBe(20);
    await clock.advance(20);
    expect(mirror.release(30, false)).toBe(30);
    await mirror.close();
  });

  it('is not waited for longer than a mirror takes when it runs full', async () => {
    const { clock, open } = await world();
    const mirror = await open();
    await clock.advance(PAUSE_MS);
    for (const position of [10, 20, 30]) {
      await mirror.catalog.commit([put('disk', '1', String(position))]);
      expect(mirror.release(position, true)).toBeLessThan(position);
      await clock.advance(0);
      expect(mirror.release(position, true)).toBe(position);
    }
    await mirror.close();
  });

  it('is released without a mirror when the disk is full, and when the log is and mirrors fail', async () => {
    const { inner, store, clock } = await world();
    const troubles: (string | undefined)[] = [];
    const mirror = await openCatalogMirror({
      ...{ catalog: inner, store, clock, storeId: STORE_ID },
      onTrouble: (error) => troubles.push(error?.code),
    });
    await clock.advance(PAUSE_MS);
    await mirror.catalog.commit([put('disk', '1', 'a')]);
    inner.fail = full;
    expect(mirror.release(10, false)).toBe(0);
    await clock.advance(PAUSE_MS);
    expect(mirror.release(10, false)).toBe(10);
    await expect(mirror.cover()).rejects.toMatchObject({ code: 'store-full' });
    await mirror.settle();
    inner.fail = new PandoError('catalog-corrupt', 'a record');
    await clock.advance(PAUSE_MS);
    expect(mirror.release(20, false)).toBe(10);
    expect(mirror.release(20, true)).toBe(20);
    inner.fail = undefined;
    await clock.advance(60_000);
    expect(troubles).toEqual(['store-full', 'catalog-corrupt', undefined]);
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    await mirror.close();
  });
});

it('while mirrors fail, a record that changes again and again is named once', async () => {
  const { inner, clock, store, open } = await world();
  const mirror = await open();
  await clock.advance(PAUSE_MS);
  const { snapshot } = inner;
  inner.snapshot = () => {
    throw new PandoError('catalog-corrupt', 'a block');
  };
  for (let i = 0; i < 20; i++) {
    await mirror.catalog.commit([put('disk', '1', String(i))]);
    await clock.advance(PAUSE_MS);
  }
  expect(mirror.trouble).toMatchObject({ code: 'catalog-corrupt' });
  inner.snapshot = snapshot;
  expect(await inner.list(CHANGE_TABLE)).toHaveLength(1);
  await mirror.cover();
  expect(await mirrored(store)).toEqual(await contentsOf(inner));
  await mirror.catalog.commit([put('disk', '1', 'changed')]);
  await mirror.cover();
  expect(await mirrored(store)).toEqual(await contentsOf(inner));
  await mirror.close();
});

describe('collections', () => {
  it('take neither the newest mirror nor the one before, and the others', async () => {
    const { inner, store, open } = await world();
    await records(inner, 2_000);
    const mirror = await open();
    await mirror.cover();
    for (let i = 1; i < 5; i++) {
      await mirror.catalog.commit([put('disk', String(i * 300).padStart(12, '0'), `changed ${i}`)]);
      await mirror.cover();
    }
    expect(await findAnchors(store, STORE_ID)).toHaveLength(5);
    await collect(store, noRoots, { compactBelow: 1 });
    const left = await findAnchors(store, STORE_ID);
    expect(left.map(({ count }) => count)).toEqual([5, 4]);
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    await mirror.close();
  });

  it('in the middle of mirrors take nothing that a mirror needs', async () => {
    const seed = runSeed();
    console.log(`PANDO_SEED=${seed}`);
    const random = seededRandom(seed);
    const { inner, store, open } = await world({ segmentBytesMax: 256 * KiB });
    await records(inner, 500);
    const mirror = await open();
    const done = new AbortController();
    const collections = (async () => {
      while (!done.signal.aborted) await collect(store, noRoots, { compactBelow: 1 });
    })();
    for (let i = 0; i < 60; i++) {
      for (let n = between(random, 1, 20); n > 0; n--) {
        const key = String(between(random, 0, 700)).padStart(12, '0');
        await mirror.catalog.commit([
          random() < 0.3
            ? { type: 'delete', table: 'disk', key }
            : put('disk', key, `${i}`.repeat(between(random, 1, 60))),
        ]);
      }
      if (random() < 0.1) mirror.renew();
      await mirror.cover();
      expect(await mirrored(store)).toEqual(await contentsOf(inner));
    }
    done.abort();
    await collections;
    await mirror.close();
  });
});

describe('while a block of the catalog cannot be read', () => {
  const HOUR_MS = 60 * 60_000;

  it('mirrors are tried less and less often, down to once an hour, and as ever when it can be again', async () => {
    const { inner, store, clock, open } = await world();
    const mirror = await open();
    await clock.advance(PAUSE_MS);
    const { snapshot } = inner;
    let attempts = 0;
    inner.snapshot = () => {
      attempts++;
      throw new PandoError('catalog-corrupt', 'a block');
    };
    await mirror.catalog.commit([put('vm', 'a', '1')]);
    await clock.advance(HOUR_MS);
    expect(attempts).toBeGreaterThan(5);
    expect(attempts).toBeLessThan(15);
    attempts = 0;
    await clock.advance(10 * HOUR_MS);
    expect(attempts).toBeGreaterThan(8);
    expect(attempts).toBeLessThan(12);
    // Who waits for one is not kept waiting, and neither is who has a reason to hope.
    await expect(mirror.cover()).rejects.toMatchObject({ code: 'catalog-corrupt' });
    inner.snapshot = snapshot;
    mirror.renew();
    await clock.advance(PAUSE_MS);
    expect(mirror.trouble).toBeUndefined();
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    await mirror.catalog.commit([put('vm', 'b', '1')]);
    await clock.advance(CHANGE_MS_MAX);
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    await mirror.close();
  });
});

it('an anchor is written when what it leads to is durable', async () => {
  const { inner, store, open } = await world();
  await inner.commit([put('vm', 'a', '1')]);
  const steps: string[] = [];
  const { openSession } = store;
  store.openSession = (options) => {
    const session = openSession.call(store, options);
    const { writeChunks, writeAnchor, flush } = session;
    return Object.assign(session, {
      writeChunks: (...given: Parameters<typeof writeChunks>) => {
        steps.push('write');
        return writeChunks.apply(session, given);
      },
      writeAnchor: (...given: Parameters<typeof writeAnchor>) => {
        steps.push('anchor');
        return writeAnchor.apply(session, given);
      },
      flush: () => {
        steps.push('flush');
        return flush.call(session);
      },
    });
  };
  const mirror = await open();
  await mirror.cover();
  const anchor = steps.indexOf('anchor');
  expect(steps.slice(anchor - 1, anchor + 2)).toEqual(['flush', 'anchor', 'flush']);
  expect(steps.slice(0, anchor - 1)).toContain('write');
  await mirror.close();
});

it('the mirror that a catalog was made from stays until there is another', async () => {
  const { inner, store, open } = await world();
  await records(inner, 2_000);
  const before = await open();
  await before.close();
  const expected = await contentsOf(inner);
  const [anchor] = await findAnchors(store, STORE_ID);
  const made = new FailingCatalog();
  await restoreCatalog(store, anchor!, made, anchor!.epoch + 1);
  const mirror = await openCatalogMirror({
    ...{ catalog: made, store, storeId: STORE_ID, clock: new StillClock() },
  });
  made.fail = full;
  await expect(mirror.cover()).rejects.toBe(full);
  await collect(store, noRoots, { compactBelow: 1 });
  expect(await mirrored(store)).toEqual(expected);
  made.fail = undefined;
  await mirror.catalog.commit([put('vm', 'a', '1')]);
  await mirror.cover();
  expect(await mirrored(store)).toEqual(await contentsOf(made));
  await mirror.close();
});

it('a mirror that has lost a page or node writes all of it anew', async () => {
  const { inner, store, open } = await world();
  await records(inner, 5_000);
  const mirror = await open();
  await mirror.cover();
  // As if its directory were lost.
  const pages = await inner.list(PAGE_TABLE, { limit: 10_000 });
  await inner.commit(pages.map(({ key }) => ({ type: 'delete', table: PAGE_TABLE, key })));
  await mirror.catalog.commit([put('disk', '000000000500', 'changed')]);
  await mirror.cover();
  expect(await mirrored(store)).toEqual(await contentsOf(inner));
  await mirror.close();
});

describe('a catalog whose damage was accepted', () => {
  const lose = async (catalog: Catalog, ...tables: string[]): Promise<void> => {
    for (const table of tables) {
      const found = await catalog.list(table, { limit: 10_000 });
      await catalog.commit(found.map(({ key }) => ({ type: 'delete', table, key })));
    }
  };

  it.each([
    ['changes that were not mirrored', [CHANGE_TABLE]],
    ['where its mirror is', [STATE_TABLE, PAGE_TABLE, CHANGE_TABLE]],
  ])('that has lost %s is mirrored anew, and that mirror is the newest', async (_, tables) => {
    const { inner, store, open } = await world();
    await records(inner, 2_000);
    for (let start = 0; start < 3; start++) {
      const mirror = await open();
      await mirror.catalog.commit([put('vm', 'a', String(start))]);
      await mirror.cover();
      await mirror.catalog.commit([put('disk', '000000001000', String(start))]);
      // It is killed.
    }
    await lose(inner, ...tables);
    const mirror = await open({ isDamaged: true });
    await mirror.cover();
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    await mirror.close();
  });
});

describe('a mirror against its catalog', () => {
  const seeds = [runSeed(), 11];
  it.each(seeds)('is the same after any changes, restarts and failures (seed %i)', async (seed) => {
    const random = seededRandom(seed);
    const pick = <T>(items: readonly T[]): T => items[between(random, 0, items.length - 1)]!;
    const { inner, store, open } = await world({ segmentBytesMax: 512 * KiB });
    let mirror = await open();
    const tables = ['disk', 'vm', 'vm-name', 'backup', 'zebra', 'zz'];
    const lengths = [0, 10, 10, 100, 300, 5_000, 40_000];
    for (let step = 0; step < 150; step++) {
      const dice = random();
      if (dice < 0.55) {
        const count = pick([1, 1, 2, 30, 200]);
        const table = pick(tables);
        const operations = Array.from({ length: count }, (): CatalogOperation => {
          const key = String(between(random, 0, 2_000));
          if (random() < 0.4) return { type: 'delete', table, key };
          return put(table, key, 'x'.repeat(count > 2 ? pick([0, 10, 100]) : pick(lengths)));
        });
        await mirror.catalog.commit(operations);
      } else if (dice < 0.6) {
        // Most of a table goes.
        const table = pick(tables);
        const found = await inner.list(table, { limit: 1_000 });
        await mirror.catalog.commit(found.map(({ key }) => ({ type: 'delete', table, key })));
      } else if (dice < 0.65) {
        inner.fail = full;
        const [failed] = await Promise.allSettled([
          mirror.cover(),
          mirror.catalog.commit([put('vm', 'x', 'x')]),
        ]);
        if (failed.status === 'rejected') expect(failed.reason).toBe(full);
        inner.fail = undefined;
      } else if (dice < 0.7) {
        if (random() < 0.5) await mirror.close();
        mirror = await open();
      } else if (dice < 0.73) mirror.renew();
      else if (dice < 0.76) await collect(store, noRoots);
      else {
        await mirror.cover();
        expect(await mirrored(store)).toEqual(await contentsOf(inner));
      }
    }
    await mirror.close();
    expect(await mirrored(store)).toEqual(await contentsOf(inner));
    expect(await inner.list(CHANGE_TABLE)).toEqual([]);
  });
});
