/** A catalog whose files are damaged: it does not open and pretend that records never were. */
import { mkdtemp, open as openFile, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { keyBytes } from './keys.ts';
import { openLevelCatalog, type LevelCatalog, type LevelCatalogOptions } from './level-catalog.ts';

let scratch: string;
let directory: string;
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'pando-catalog-'));
  directory = join(scratch, 'catalog');
});
afterEach(() => rm(scratch, { recursive: true }));

const open = (options: LevelCatalogOptions = {}): Promise<LevelCatalog> =>
  openLevelCatalog(directory, { witness: join(scratch, 'catalog.commits'), ...options });

async function commit(catalog: LevelCatalog, from: number, count: number): Promise<void> {
  for (let n = from; n < from + count; n++)
    await catalog.commit([{ type: 'put', table: 't', key: `key ${n}`, value: { version: 1, n } }]);
}

const keysIn = async (catalog: LevelCatalog): Promise<string[]> =>
  (await catalog.list('t')).map(({ key }) => key).sort();

async function newest(end: string): Promise<string> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(end)).sort();
  return join(directory, names.at(-1)!);
}

/** In place: LevelDB has its tables mapped, and would die of one that is cut for a moment. */
async function flip(path: string, at: number): Promise<void> {
  const file = await openFile(path, 'r+');
  const byte = Buffer.alloc(1);
  const from = at < 0 ? (await file.stat()).size + at : at;
  await file.read(byte, 0, 1, from);
  byte[0]! ^= 8;
  await file.write(byte, 0, 1, from);
  await file.close();
}

/** Text that does not compress. */
const noise = (bytes: number): string =>
  Buffer.from(fillRandom(seededRandom(3), new Uint8Array(bytes / 2))).toString('hex');

const CORRUPT = { code: 'catalog-corrupt', kind: 'data' };

test('damage to the newest commit is not taken for an end that a crash tore', async () => {
  let catalog = await open();
  await commit(catalog, 0, 3);
  await catalog.close();
  const log = await newest('.log');
  await flip(log, -3);
  for (let again = 0; again < 2; again++) await expect(open()).rejects.toMatchObject(CORRUPT);
  await expect(open()).rejects.toThrow(/ends with commit 2, and 3 were made/);
  // Who accepts that has what is left, and is not asked again.
  catalog = await open({ acceptDamage: true });
  expect(await keysIn(catalog)).toEqual(['key 0', 'key 1']);
  await commit(catalog, 7, 1);
  await catalog.close();
  catalog = await open();
  expect(await keysIn(catalog)).toEqual(['key 0', 'key 1', 'key 7']);
  await catalog.close();
});

test('a commit that a power cut kept from the disk in part, its end excepted, is a torn end; one that was made is not', async () => {
  let catalog = await open();
  await commit(catalog, 0, 3);
  const witness = join(scratch, 'catalog.commits');
  await catalog.close();
  const before = await readFile(witness);
  catalog = await open();
  await commit(catalog, 3, 1);
  await catalog.commit([
    { type: 'put', table: 't', key: 'large', value: { version: 1, text: noise(90_000) } },
  ]);
  await catalog.close();
  // The pages before the last: the end of the commit stands in blocks behind them.
  const log = await newest('.log');
  const file = await openFile(log, 'r+');
  await file.write(Buffer.alloc(4096), 0, 4096, 4096);
  await file.close();
  await expect(open()).rejects.toThrow(/ends with commit 4, and 5 were made/);
  await writeFile(witness, before); // it had not been told yet
  catalog = await open();
  expect(await keysIn(catalog)).toEqual(['key 0', 'key 1', 'key 2', 'key 3']);
  expect(await catalog.verify()).toEqual([]);
  await catalog.close();
});

test.each([
  [
    'a commit in the middle',
    (log: string) => flip(log, 200),
    /\.log at byte \d+: a record in the middle of the log is damaged/,
  ],
  ['its log cut', (log: string) => truncate(log, 150), /ends with commit \d, and 9 were made/],
  ['its log gone', (log: string) => rm(log), /\.log at byte 0: the log that the manifest names is missing/],
  ['all of it gone', () => rm(directory, { recursive: true }), /there is nothing in it/],
  ['CURRENT gone', () => rm(join(directory, 'CURRENT')), /CURRENT at byte 0: the file is missing/],
  ['its manifest cut', async () => truncate(await newest('MANIFEST-000002'), 30), /MANIFEST|\.log/],
])('%s is refused with its place', async (_what, damage, message) => {
  const catalog = await open();
  await commit(catalog, 0, 9);
  await catalog.close();
  await damage(await newest('.log'));
  await expect(open({ mustExist: true })).rejects.toMatchObject(CORRUPT);
  await expect(open({ mustExist: true })).rejects.toThrow(message);
});

test('damage that would leave nothing is not accepted, and what there is stays', async () => {
  let catalog = await open();
  await commit(catalog, 0, 9);
  await catalog.close();
  const current = await readFile(join(directory, 'CURRENT'));
  const all = async (): Promise<string[]> => (await readdir(directory)).filter((name) => name !== 'CURRENT');
  const before = await all();
  for (const change of [
    () => rm(join(directory, 'CURRENT')),
    () => writeFile(join(directory, 'CURRENT'), 'MAN'),
  ]) {
    await change();
    await expect(open({ mustExist: true, acceptDamage: true })).rejects.toMatchObject(CORRUPT);
    expect(await all()).toEqual(before);
  }
  await writeFile(join(directory, 'CURRENT'), current);
  catalog = await open({ mustExist: true });
  expect(await keysIn(catalog)).toHaveLength(9);
  await catalog.close();
  await rm(directory, { recursive: true });
  await expect(open({ mustExist: true, acceptDamage: true })).rejects.toThrow(/nothing in it/);
});

test('a table of which a bit flipped is refused, and found in one that is open', async () => {
  let catalog = await open();
  await commit(catalog, 0, 200);
  await catalog.close();
  catalog = await open(); // which makes a table of the log
  const table = await newest('.ldb');
  expect(await catalog.verify()).toEqual([]);
  await flip(table, 100);
  expect(await catalog.verify()).toEqual([
    { file: table.slice(directory.length + 1), offset: 0, problem: 'the checksum of a block does not match' },
  ]);
  await catalog.close();
  await expect(open()).rejects.toThrow(/\.ldb at byte 0: the checksum of a block/);
  await flip(table, 100);
  catalog = await open();
  expect(await keysIn(catalog)).toHaveLength(100);
  await catalog.close();
});

test('a record that was damaged before it got into the files is found by verification', async () => {
  const { Level } = await import('level');
  await (await open()).close();
  const level = new Level<Buffer, Buffer>(directory, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
  await level.open();
  await level.put(keyBytes('t', 'a'), Buffer.from('no record'));
  await level.close();
  const catalog = await open();
  expect(await catalog.verify()).toMatchObject([{ file: 'table "t", key "a"' }]);
  await catalog.close();
});

test('a witness that is gone or damaged, or of before a commit, refuses nothing', async () => {
  const witness = join(scratch, 'catalog.commits');
  let catalog = await open();
  await commit(catalog, 0, 2);
  await catalog.close();
  const old = await readFile(witness);
  catalog = await open();
  await commit(catalog, 2, 2);
  await catalog.close();
  for (const change of [
    () => rm(witness),
    () => writeFile(witness, old),
    () => flip(witness, 12),
    () => truncate(witness, 5),
  ]) {
    await change();
    await (await open()).close();
    await writeFile(witness, old);
  }
});
