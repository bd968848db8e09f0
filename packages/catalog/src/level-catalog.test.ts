import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { nodeFileSystem } from '@pando/common';
import { Level } from 'level';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { catalogConformance } from './conformance.ts';
import { keyBytes } from './keys.ts';
import { openLevelCatalog } from './level-catalog.ts';
import { cutLog, logEnd } from './level-log.ts';
import { checkRecord, encodeRecord } from './records.ts';

const temporary = (): Promise<string> => mkdtemp(join(tmpdir(), 'pando-catalog-'));

catalogConformance('LevelCatalog', async () => {
  const directory = await temporary();
  const catalog = await openLevelCatalog(directory);
  return {
    catalog,
    reopen: async () => {
      await catalog.close();
      return openLevelCatalog(directory);
    },
    cleanUp: () => rm(directory, { recursive: true }),
  };
});

describe('LevelCatalog', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await temporary();
  });
  afterEach(() => rm(directory, { recursive: true }));

  const raw = async (action: (level: Level<Buffer, Buffer>) => Promise<void>): Promise<void> => {
    const level = new Level<Buffer, Buffer>(directory, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
    await level.open();
    await action(level);
    await level.close();
  };
  const record = (n: number): { version: 1; n: number } => ({ version: 1, n });

  test('the second opening of a directory is refused as locked, the third after closing is not', async () => {
    const catalog = await openLevelCatalog(directory);
    await expect(openLevelCatalog(directory)).rejects.toMatchObject({ code: 'store-locked' });
    await catalog.close();
    await (await openLevelCatalog(directory)).close();
  });

  test('which of its files count is durable when it opens: what is built on it must not go back to those before', async () => {
    await (await openLevelCatalog(directory)).close();
    const current = (): string => readFileSync(join(directory, 'CURRENT'), 'utf8');
    const before = current();
    const synced: string[] = [];
    const { syncDirectory } = nodeFileSystem;
    const spy = vi.spyOn(nodeFileSystem, 'syncDirectory').mockImplementation((path) => {
      if (path === directory) synced.push(current());
      return syncDirectory(path);
    });
    const catalog = await openLevelCatalog(directory).finally(() => spy.mockRestore());
    expect(current()).not.toBe(before);
    expect(synced.at(-1)).toBe(current());
    await catalog.close();
  });

  test('another process is kept out', async () => {
    const catalog = await openLevelCatalog(directory);
    const script = `import { openLevelCatalog } from ${JSON.stringify(import.meta.resolve('./level-catalog.ts'))};
      await openLevelCatalog(process.argv[1]).then(() => console.log('open'), (error) => console.log(error.code));`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', script, directory], {
      encoding: 'utf8',
    });
    expect(output.trim()).toBe('store-locked');
    await catalog.close();
  });

  test('a directory with files of something else is refused and left alone', async () => {
    await writeFile(join(directory, 'holiday.jpg'), 'x');
    await expect(openLevelCatalog(directory)).rejects.toMatchObject({ code: 'store-foreign' });
    expect(await readdir(directory)).toEqual(['holiday.jpg']);
  });

  test('a LevelDB of something else is refused', async () => {
    await raw((level) => level.put(Buffer.from('a'), Buffer.from('b')));
    await expect(openLevelCatalog(directory)).rejects.toMatchObject({ code: 'store-foreign' });
  });

  test('a layout of a later version is refused, and the lock is given back', async () => {
    await (await openLevelCatalog(directory)).close();
    const key = keyBytes('catalog-meta', 'layout');
    await raw((level) => level.put(key, encodeRecord(key, { version: 2 })));
    await expect(openLevelCatalog(directory)).rejects.toMatchObject({ code: 'store-newer' });
    await expect(openLevelCatalog(directory)).rejects.toMatchObject({ code: 'store-newer' });
  });

  test('a record of a later version is refused by checkRecord, and one without as corrupt', () => {
    expect(() => checkRecord('vm', 'a', { version: 2 }, 1)).toThrow(
      expect.objectContaining({ code: 'store-newer' }),
    );
    expect(() => checkRecord('vm', 'a', {}, 1)).toThrow(expect.objectContaining({ code: 'catalog-corrupt' }));
    expect(() => checkRecord('vm', 'a', { version: 1 }, 1)).not.toThrow();
  });

  test('any flipped bit of a record is found, and the message says where', async () => {
    let catalog = await openLevelCatalog(directory);
    await catalog.commit([{ type: 'put', table: 'vm', key: 'web/1', value: record(1) }]);
    await catalog.close();
    const key = keyBytes('vm', 'web/1');
    const good = encodeRecord(key, record(1));
    for (let at = 0; at < good.byteLength; at++) {
      const bad = Buffer.from(good);
      bad[at]! ^= 1 << (at % 8);
      await raw((level) => level.put(key, bad));
      catalog = await openLevelCatalog(directory);
      const problem = {
        code: 'catalog-corrupt',
        kind: 'data',
        message: expect.stringMatching(/vm.*web\/1/) as string,
      };
      await expect(catalog.get('vm', 'web/1')).rejects.toMatchObject(problem);
      await expect(catalog.getMany('vm', ['x', 'web/1'])).rejects.toMatchObject(problem);
      await expect(catalog.list('vm')).rejects.toMatchObject(problem);
      await catalog.close();
    }
  });

  test.each([0, 1, 4])('a record of %i bytes is corrupt', async (length) => {
    await (await openLevelCatalog(directory)).close();
    await raw((level) => level.put(keyBytes('vm', 'a'), Buffer.alloc(length)));
    const catalog = await openLevelCatalog(directory);
    await expect(catalog.get('vm', 'a')).rejects.toMatchObject({ code: 'catalog-corrupt' });
    await catalog.close();
  });

  test('a record under the key of another is corrupt', async () => {
    await (await openLevelCatalog(directory)).close();
    await raw((level) => level.put(keyBytes('vm', 'b'), encodeRecord(keyBytes('vm', 'a'), record(1))));
    const catalog = await openLevelCatalog(directory);
    await expect(catalog.get('vm', 'b')).rejects.toMatchObject({ code: 'catalog-corrupt' });
    await catalog.close();
  });

  test('cutting the log takes the batches after the mark away, also over a restart', async () => {
    let catalog = await openLevelCatalog(directory);
    await catalog.commit([{ type: 'put', table: 't', key: 'before', value: record(1) }]);
    const end = logEnd(directory);
    await catalog.commit([{ type: 'put', table: 't', key: 'after', value: record(2) }]);
    await cutLog(directory, end);
    await catalog.close();
    catalog = await openLevelCatalog(directory);
    expect(await catalog.list('t')).toEqual([{ key: 'before', value: record(1) }]);
    await catalog.close();
  });
});

/**
 * A real refusal by the kernel, without a file system of one's own: the child's limit on file sizes is
 * lowered with prlimit (EFBIG, which LevelDB treats as it treats ENOSPC), and raised again.
 */
const prlimitWorks = (() => {
  try {
    execFileSync('prlimit', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    console.warn('skipped: tests of a full disk need prlimit (util-linux)');
    return false;
  }
})();

describe.skipIf(!prlimitWorks)('LevelCatalog on a full disk', () => {
  let directory: string;
  let child: ChildProcess;
  let ask: (command: object) => Promise<unknown>;

  beforeEach(async () => {
    directory = await temporary();
    child = spawn(process.execPath, [new URL('./full-disk-child.ts', import.meta.url).pathname, directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    ask = async (command) => {
      child.stdin!.write(`${JSON.stringify(command)}\n`);
      return JSON.parse((await lines.next()).value as string) as unknown;
    };
  });
  afterEach(async () => {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.stdin!.end();
    await gone;
    await rm(directory, { recursive: true });
  });

  const limit = (bytes: number | 'unlimited'): void => {
    execFileSync('prlimit', ['--pid', String(child.pid), `--fsize=${bytes}:`]);
  };
  const logBytes = async (): Promise<number> => {
    const logs = (await readdir(directory)).filter((file) => file.endsWith('.log')).sort();
    return (await stat(join(directory, logs.at(-1)!))).size;
  };

  test.each([7, 40, 3000, 40_000])(
    'a refused batch has no effect, reads go on, and what is committed afterwards outlives a kill (torn after %i bytes)',
    async (spare) => {
      expect(await ask({ put: 'first', bytes: 10 })).toBe('done');
      limit((await logBytes()) + spare);
      expect(await ask({ put: 'refused', bytes: 50_000 })).toBe('store-full');
      expect(await ask({ put: 'small', bytes: 10 })).toBe('store-full');
      expect(await ask({ get: 'first' })).toBe(10);
      expect(await ask({ get: 'refused' })).toBe(null);
      expect(await ask({ snapshot: 'open' })).toBe('done');
      limit('unlimited');
      expect(await ask({ put: 'held', bytes: 10 })).toBe('store-full');
      expect(await ask({ snapshot: 'count' })).toBe(1);
      expect(await ask({ snapshot: 'close' })).toBe('done');
      for (const name of ['second', 'third', 'fourth'])
        expect(await ask({ put: name, bytes: 20_000 })).toBe('done');
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('exit', resolve));

      const catalog = await openLevelCatalog(directory);
      const keys = (await catalog.list('t')).map((entry) => entry.key);
      expect(keys).toEqual(['first', 'fourth', 'second', 'third']);
      await catalog.close();
      child = spawn('true');
    },
  );

  test('a refused batch does not come back when the process dies while the disk is full', async () => {
    expect(await ask({ put: 'first', bytes: 10 })).toBe('done');
    limit((await logBytes()) + 100);
    expect(await ask({ put: 'refused', bytes: 1000 })).toBe('store-full');
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    const catalog = await openLevelCatalog(directory);
    expect((await catalog.list('t')).map((entry) => entry.key)).toEqual(['first']);
    await catalog.close();
    child = spawn('true');
  });
});
