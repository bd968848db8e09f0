/**
 * What every catalog must do. A factory makes an empty one; `reopen`, where there is something to
 * reopen, closes it and opens the same data again.
 */
import { PandoError } from '@pando/common';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { decodeStored } from './records.ts';
import type { Catalog, CatalogOperation, CatalogSnapshot, RecordName, StoredRecord } from './types.ts';

export interface CatalogFixture {
  catalog: Catalog;
  /** Closes the catalog and opens the same records again; absent where nothing outlives closing. */
  reopen?: () => Promise<Catalog>;
  cleanUp(): Promise<void>;
}

interface Numbered {
  readonly version: 1;
  readonly n: number;
}

const put = (table: string, key: string, n: number): CatalogOperation => ({
  type: 'put',
  table,
  key,
  value: { version: 1, n } satisfies Numbered,
});
const remove = (table: string, key: string): CatalogOperation => ({ type: 'delete', table, key });

/** In order of their UTF-8 bytes, which is not the order of JavaScript's UTF-16 units. */
const KEYS_IN_ORDER = [
  '',
  '\u0001',
  ' ',
  '0',
  'A',
  'a',
  'a\u0001',
  'a/b',
  'aa',
  'b',
  '~',
  '\u007f',
  'ß',
  'ä',
  'Ω',
  '你好',
  '\uffee',
  '🌲',
  '🌳',
];

export function catalogConformance(name: string, make: () => Promise<CatalogFixture>): void {
  describe(`${name} conforms to Catalog`, () => {
    let fixture: CatalogFixture;
    let catalog: Catalog;

    beforeEach(async () => {
      fixture = await make();
      catalog = fixture.catalog;
    });
    afterEach(async () => {
      await fixture.catalog.close();
      await fixture.cleanUp();
    });

    const keys = async (table: string, options?: Parameters<Catalog['list']>[1]): Promise<string[]> =>
      (await catalog.list(table, options)).map((entry) => entry.key);
    const walk = async (snapshot: CatalogSnapshot, table: string, prefix?: string): Promise<string[]> => {
      const found: string[] = [];
      for await (const { key } of snapshot.entries(table, prefix === undefined ? {} : { prefix }))
        found.push(key);
      return found;
    };

    test('a missing record is undefined, and an empty table lists nothing', async () => {
      expect(await catalog.get('vm', 'x')).toBeUndefined();
      expect(await catalog.getMany('vm', ['x', 'y'])).toEqual([undefined, undefined]);
      expect(await catalog.getMany('vm', [])).toEqual([]);
      expect(await catalog.list('vm')).toEqual([]);
    });

    test('a record comes back as it was put, with its bytes, and is no one else’s', async () => {
      const value = {
        version: 1,
        text: 'ä🌲',
        empty: '',
        yes: true,
        none: null,
        large: Number.MAX_SAFE_INTEGER,
        negative: -1,
        id: new Uint8Array([0, 255, 1]),
        list: [1, 2, { a: new Uint8Array(0) }],
      };
      const committed = catalog.commit([{ type: 'put', table: 'vm', key: 'x', value }]);
      value.text = 'changed after the call';
      await committed;
      const first = (await catalog.get('vm', 'x')) as typeof value;
      expect(first).toMatchObject({
        version: 1,
        text: 'ä🌲',
        empty: '',
        yes: true,
        none: null,
        negative: -1,
      });
      expect(first.large).toBe(Number.MAX_SAFE_INTEGER);
      expect([...first.id]).toEqual([0, 255, 1]);
      first.id[0] = 7;
      const second = (await catalog.get('vm', 'x')) as typeof value;
      expect([...second.id]).toEqual([0, 255, 1]);
      expect(second.list).toHaveLength(3);
    });

    test('the last operation on a key in a batch wins, and deleting what is not there is no error', async () => {
      await catalog.commit([
        put('t', 'a', 1),
        put('t', 'a', 2),
        remove('t', 'b'),
        put('t', 'c', 3),
        remove('t', 'c'),
      ]);
      await catalog.commit([remove('t', 'd'), put('t', 'd', 4)]);
      expect(await catalog.getMany('t', ['a', 'b', 'c', 'd'])).toEqual([
        { version: 1, n: 2 },
        undefined,
        undefined,
        { version: 1, n: 4 },
      ]);
    });

    test('an empty batch is committed', async () => {
      await expect(catalog.commit([])).resolves.toBeUndefined();
    });

    test('keys are ordered by their UTF-8 bytes', async () => {
      const shuffled = [...KEYS_IN_ORDER].sort((a, b) => (a + 'x').length - (b + 'x').length).reverse();
      await catalog.commit(shuffled.map((key, n) => put('t', key, n)));
      expect(await keys('t')).toEqual(KEYS_IN_ORDER);
      expect(await keys('t', { reverse: true })).toEqual([...KEYS_IN_ORDER].reverse());
      const snapshot = catalog.snapshot();
      expect(await walk(snapshot, 't')).toEqual(KEYS_IN_ORDER);
      await snapshot.close();
    });

    test('tables keep apart, also when the name of one begins with another’s', async () => {
      await catalog.commit([
        put('vm', 'a', 1),
        put('vm-name', 'b', 2),
        put('v', 'm', 3),
        put('vm\u0001', 'c', 4),
      ]);
      expect(await keys('vm')).toEqual(['a']);
      expect(await keys('vm-name')).toEqual(['b']);
      expect(await keys('v')).toEqual(['m']);
      expect(await keys('vm\u0001')).toEqual(['c']);
    });

    test('list takes prefix, after, before, reverse and limit together', async () => {
      await catalog.commit(['a', 'b1', 'b2', 'b3', 'b4', 'b5', 'c'].map((key, n) => put('t', key, n)));
      expect(await keys('t', { prefix: 'b' })).toEqual(['b1', 'b2', 'b3', 'b4', 'b5']);
      expect(await keys('t', { prefix: 'b', after: 'b2' })).toEqual(['b3', 'b4', 'b5']);
      expect(await keys('t', { prefix: 'b', after: 'b2', before: 'b5' })).toEqual(['b3', 'b4']);
      expect(await keys('t', { prefix: 'b', after: 'a' })).toEqual(['b1', 'b2', 'b3', 'b4', 'b5']);
      expect(await keys('t', { prefix: 'b', after: 'c' })).toEqual([]);
      expect(await keys('t', { prefix: 'b', before: 'b1' })).toEqual([]);
      expect(await keys('t', { after: 'b25', limit: 2 })).toEqual(['b3', 'b4']);
      expect(await keys('t', { reverse: true, before: 'b3', limit: 2 })).toEqual(['b2', 'b1']);
      expect(await keys('t', { reverse: true, prefix: 'b', after: 'b1' })).toEqual(['b5', 'b4', 'b3', 'b2']);
      expect(await keys('t', { after: 'a', before: 'a' })).toEqual([]);
      expect(await keys('t', { limit: 0 })).toEqual([]);
    });

    test('list stops at 100 records unless told otherwise', async () => {
      const all = Array.from({ length: 1001 }, (_, n) => String(n).padStart(4, '0'));
      await catalog.commit(all.map((key, n) => put('t', key, n)));
      expect(await keys('t')).toEqual(all.slice(0, 100));
      expect(await keys('t', { limit: 5000 })).toEqual(all);
    });

    test('a snapshot lists the records of all tables as they are stored, by stored key, between two names', async () => {
      const tables = ['a', 'b', 'b-c', 'catalog-mess', 'catalog-metal', 'z', '~x'];
      const all = tables.flatMap((table) => KEYS_IN_ORDER.map((key) => ({ table, key })));
      await catalog.commit(all.map(({ table, key }, n) => put(table, key, n)).reverse());
      const snapshot = catalog.snapshot();
      await catalog.commit([remove('a', 'a'), put('b', 'new', 1)]);
      const stored = async (range?: Parameters<CatalogSnapshot['stored']>[0]): Promise<StoredRecord[]> => {
        const records: StoredRecord[] = [];
        for await (const part of snapshot.stored(range)) records.push(...part);
        return records;
      };
      const names = (records: readonly StoredRecord[]): unknown[] =>
        records.map(({ table, key }) => ({ table, key }));
      const found = await stored();
      expect(names(found)).toEqual(all);
      expect(found.map((record) => decodeStored(record))).toEqual(all.map((_, n) => ({ version: 1, n })));
      const from = { table: 'b', key: 'aa' };
      const to = { table: 'z', key: 'Ω' };
      const index = (name: RecordName): number =>
        all.findIndex(({ table, key }) => table === name.table && key === name.key);
      expect(names(await stored({ from, to }))).toEqual(all.slice(index(from), index(to)));
      expect(names(await stored({ from }))).toEqual(all.slice(index(from)));
      expect(names(await stored({ to: { table: '~', key: '' } }))).toEqual(
        all.slice(0, -KEYS_IN_ORDER.length),
      );
      expect(await stored({ from: to, to: from })).toEqual([]);
      const damaged = {
        ...found[7]!,
        value: Uint8Array.from(found[7]!.value, (byte, i) => (i === 9 ? byte ^ 1 : byte)),
      };
      expect(() => decodeStored(damaged)).toThrow(/table "a", key/);
      expect(() => decodeStored({ ...found[7]!, key: 'other' })).toThrow(/table "a", key "other"/);
      await snapshot.close();
    });

    test('a snapshot sees what had resolved and nothing that came after, over many records', async () => {
      const all = Array.from({ length: 777 }, (_, n) => String(n).padStart(4, '0'));
      await catalog.commit(all.map((key, n) => put('t', key, n)));
      const snapshot = catalog.snapshot();
      const later = catalog.snapshot();
      await catalog.commit([remove('t', '0000'), put('t', '0001', -1), put('t', 'new', 1)]);
      const seen: string[] = [];
      for await (const { key, value } of snapshot.entries('t')) {
        if (seen.length === 300) await catalog.commit([remove('t', '0500')]);
        expect((value as Numbered).n).toBe(seen.length);
        seen.push(key);
      }
      expect(seen).toEqual(all);
      expect(await snapshot.get('t', '0001')).toEqual({ version: 1, n: 1 });
      expect(await snapshot.get('t', 'new')).toBeUndefined();
      expect(await snapshot.getMany('t', ['new', '0001', '0001'])).toEqual([
        undefined,
        { version: 1, n: 1 },
        { version: 1, n: 1 },
      ]);
      expect(await snapshot.getMany('t', [])).toEqual([]);
      expect(await walk(later, 't', '05')).toHaveLength(100);
      await snapshot.close();
      await later.close();
      expect(await catalog.get('t', '0001')).toEqual({ version: 1, n: -1 });
    });

    test('a closed snapshot refuses reads, and closing it again does nothing', async () => {
      const snapshot = catalog.snapshot();
      await snapshot.close();
      await snapshot.close();
      await expect(snapshot.get('t', 'a')).rejects.toMatchObject({ code: 'shutting-down' });
      await expect(walk(snapshot, 't')).rejects.toMatchObject({ code: 'shutting-down' });
    });

    test('batches take effect in the order of the calls', async () => {
      const commits: Promise<void>[] = [];
      for (let n = 0; n < 500; n++)
        commits.push(catalog.commit([put('t', 'last', n), put('t', `k${n}`, n), remove('t', `k${n - 1}`)]));
      await Promise.all(commits);
      expect(await catalog.get('t', 'last')).toEqual({ version: 1, n: 499 });
      expect(await keys('t', { prefix: 'k' })).toEqual(['k499']);
    });

    test('no reader sees a part of a batch', async () => {
      const commits: Promise<void>[] = [];
      for (let n = 0; n < 200; n++) {
        commits.push(catalog.commit([put('t', 'a', n), put('t', 'b', n)]));
        const snapshot = catalog.snapshot();
        commits.push(
          Promise.all([snapshot.get('t', 'a'), snapshot.get('t', 'b')]).then(async ([a, b]) => {
            expect(a).toEqual(b);
            await snapshot.close();
          }),
        );
      }
      await Promise.all(commits);
    });

    test.each([
      ['no version', { n: 1 }],
      ['version 0', { version: 0 }],
      ['no object', 'text'],
      ['an array', [1]],
      ['null', null],
      ['undefined', undefined],
    ])('a record with %s is refused, and its batch has no effect', async (_, value) => {
      const commit = catalog.commit([put('t', 'a', 1), { type: 'put', table: 't', key: 'b', value }]);
      await expect(commit).rejects.toMatchObject({ code: 'internal' });
      expect(await catalog.list('t')).toEqual([]);
    });

    test.each([
      ['the separator in a key', 't', 'a\u0000b'],
      ['the separator in a table', 't\u0000u', 'a'],
      ['half a surrogate pair', 't', '\ud83c'],
      ['no table', '', 'a'],
      ['a key that is too long', 't', 'x'.repeat(5000)],
    ])('%s is refused', async (_, table, key) => {
      await expect(catalog.commit([put(table, key, 1)])).rejects.toBeInstanceOf(PandoError);
      await expect(catalog.get(table, key)).rejects.toMatchObject({ code: 'internal' });
    });

    test('bytes grow with what is stored', async () => {
      await catalog.commit([put('t', 'a', 1)]);
      const before = await catalog.bytes();
      await catalog.commit([
        { type: 'put', table: 't', key: 'b', value: { version: 1, bytes: new Uint8Array(10_000).fill(7) } },
      ]);
      expect(await catalog.bytes()).toBeGreaterThan(before + 9_000);
    });

    test('close waits for commits that were called, and everything after it is refused', async () => {
      const commit = catalog.commit([put('t', 'a', 1)]);
      const closed = catalog.close();
      await expect(commit).resolves.toBeUndefined();
      await closed;
      await catalog.close();
      await expect(catalog.get('t', 'a')).rejects.toMatchObject({ code: 'shutting-down' });
      await expect(catalog.list('t')).rejects.toMatchObject({ code: 'shutting-down' });
      await expect(catalog.commit([put('t', 'a', 1)])).rejects.toMatchObject({ code: 'shutting-down' });
      await expect(catalog.bytes()).rejects.toMatchObject({ code: 'shutting-down' });
      expect(() => catalog.snapshot()).toThrow(PandoError);
    });

    test('what was committed is there after reopening', async () => {
      if (fixture.reopen === undefined) return;
      await catalog.commit(KEYS_IN_ORDER.map((key, n) => put('t', key, n)));
      await catalog.commit([remove('t', 'b')]);
      catalog = fixture.catalog = await fixture.reopen();
      expect(await keys('t')).toEqual(KEYS_IN_ORDER.filter((key) => key !== 'b'));
      expect(await catalog.get('t', '🌲')).toEqual({ version: 1, n: KEYS_IN_ORDER.indexOf('🌲') });
    });
  });
}
