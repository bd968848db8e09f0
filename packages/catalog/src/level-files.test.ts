/** `checkLevelFiles` over real databases: with them as they are it finds nothing, and with any byte changed, that byte's file. */
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkLevelFiles } from '@pando/common';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { Level } from 'level';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const FLIPS = 150;
const seed = runSeed();

describe(`the files of a LevelDB (seed ${seed})`, () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'pando-level-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  /** Two tables at least, a log behind them, with and without compression. */
  async function fill(compression: boolean): Promise<void> {
    const random = seededRandom(seed);
    for (let opening = 0; opening < 3; opening++) {
      const level = new Level<Buffer, Buffer>(directory, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
      await level.open({ compression, writeBufferSize: 64 * 1024, maxFileSize: 32 * 1024 });
      // The last one is small: no table may be half-way to the manifest when it is closed.
      for (let batch = 0; batch < (opening < 2 ? 8 : 1); batch++) {
        const operations = Array.from({ length: 40 }, (_, i) => ({
          type: 'put' as const,
          key: Buffer.from(`table\0key ${opening} ${batch} ${i}`),
          value:
            i % 3 === 0
              ? fillRandom(random, Buffer.alloc(between(random, 0, 900)))
              : Buffer.from('abc'.repeat(i)),
        }));
        await level.batch(operations, { sync: true });
      }
      await level.close();
    }
  }

  const check = (): ReturnType<typeof checkLevelFiles> => checkLevelFiles(directory, { tables: true });
  const files = async (): Promise<string[]> =>
    (await readdir(directory)).filter((name) => /^CURRENT$|^MANIFEST|\.log$|\.ldb$/.test(name)).sort();

  test.each([true, false])(
    'are found whole, and any flipped bit is found (compression: %s)',
    async (compression) => {
      await fill(compression);
      expect(await check()).toEqual([]);
      const names = await files();
      expect(names.filter((name) => name.endsWith('.ldb')).length).toBeGreaterThan(1);
      const random = seededRandom(seed + 1);
      const counts = { found: 0, tornEnds: 0 };
      for (let flip = 0; flip < FLIPS; flip++) {
        const name = names[flip % names.length]!;
        const path = join(directory, name);
        const whole = await readFile(path);
        const at = between(random, 0, whole.length - 1);
        const bad = Buffer.from(whole);
        bad[at]! ^= 1 << between(random, 0, 7);
        await writeFile(path, bad);
        const found = await check();
        await writeFile(path, whole);
        if (found.length === 0) {
          // Only what nothing whole stands behind may pass for an end that a crash tore.
          expect(name, `byte ${at}`).toMatch(/\.log$|^MANIFEST/);
          counts.tornEnds++;
          continue;
        }
        counts.found++;
        const named = found.map(({ file }) => file);
        if (name === 'CURRENT') expect(named).toHaveLength(1);
        else expect(named, `byte ${at} of ${name}`).toContain(name);
        const first = found.find(({ file }) => file === name);
        // Of a block, its beginning is named; of damage to where blocks are said to be, that place.
        if (first !== undefined && first.problem.startsWith('a record'))
          expect(first.offset).toBeLessThanOrEqual(at);
      }
      expect(counts.found).toBeGreaterThan(FLIPS / 2);
      expect(await check()).toEqual([]);
    },
  );

  test('that are cut, gone, or another, are found', async () => {
    await fill(true);
    const names = await files();
    const table = names.find((name) => name.endsWith('.ldb'))!;
    const log = names.findLast((name) => name.endsWith('.log'))!;
    for (const name of ['CURRENT', names.find((each) => each.startsWith('MANIFEST'))!, table, log]) {
      const path = join(directory, name);
      const whole = await readFile(path);
      await rm(path);
      expect((await check()).length, `${name} gone`).toBeGreaterThan(0);
      await writeFile(path, whole);
      // Cut, these have a torn end, as after a crash; what it has taken, a witness of the catalog tells, and a verification of the index.
      if (name === log || name.startsWith('MANIFEST')) continue;
      await truncate(path, Math.floor(whole.length / 2));
      expect((await check()).length, `${name} cut`).toBeGreaterThan(0);
      await writeFile(path, whole);
    }
    const tables = names.filter((name) => name.endsWith('.ldb'));
    const [a, b] = [await readFile(join(directory, tables[0]!)), await readFile(join(directory, tables[1]!))];
    await writeFile(join(directory, tables[0]!), b);
    if (a.length !== b.length) expect((await check()).map(({ file }) => file)).toEqual([tables[0]]);
  });

  test('an empty directory, and a torn end, are no damage', async () => {
    expect(await check()).toEqual([]);
    expect(await checkLevelFiles(join(directory, 'missing'), { tables: true })).toEqual([]);
    await fill(true);
    const log = (await files()).findLast((name) => name.endsWith('.log'))!;
    const level = new Level<Buffer, Buffer>(directory, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
    await level.open();
    await level.put(Buffer.from('a'), Buffer.alloc(50_000, 7), { sync: true });
    expect(await check()).toEqual([]); // of a database that is open, too
    await level.close();
    expect(await readdir(directory)).not.toContain(log);
    const newest = (await files()).findLast((name) => name.endsWith('.log'))!;
    for (const bytes of [49_000, 40_000, 32_768, 32_760, 100, 6, 0]) {
      await truncate(join(directory, newest), bytes);
      expect(await check(), `cut to ${bytes}`).toEqual([]);
    }
  });
});
