import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { nodeFileSystem } from '@pando/common';
import { describe, expect, it } from 'vitest';
import { openChunkStore } from './chunk-store.ts';
import { DirectorySegmentStorage } from './directory-segment-storage.ts';
import { hashChunk } from './hashing.ts';
import { LevelChunkIndex } from './level-chunk-index.ts';
import { chunkOf, expectChunks, range, STORE_ID } from './test-world.ts';

/** Limits on file sizes stand for a full disk (EFBIG, which LevelDB treats as it treats ENOSPC). */
const prlimitWorks = (() => {
  try {
    execFileSync('prlimit', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    console.warn('skipped: tests of a full disk need prlimit (util-linux)');
    return false;
  }
})();

describe.skipIf(!prlimitWorks)('a store on a disk that is full for real', () => {
  it.each([10, 5000])(
    'serves reads, refuses writes, writes again later, and loses nothing (%i bytes left)',
    async (left) => {
      const root = mkdtempSync(join(tmpdir(), 'pando-full-'));
      const child = spawn(
        process.execPath,
        [fileURLToPath(new URL('./full-disk-child.ts', import.meta.url)), root],
        {
          stdio: ['pipe', 'pipe', 'inherit'],
        },
      );
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const ask = async (command: object): Promise<unknown> => {
        child.stdin.write(`${JSON.stringify(command)}\n`);
        return JSON.parse((await lines.next()).value as string) as unknown;
      };
      const limit = (bytes: number | 'unlimited'): void => {
        execFileSync('prlimit', ['--pid', String(child.pid), `--fsize=${bytes}:`]);
      };
      expect(await ask({ put: [0, 600] })).toBe('done');
      const segment = join(root, 'segments', readdirSync(`${root}/segments`)[0]!);
      limit(statSync(segment).size + left);
      expect(await ask({ put: [1000, 600] })).toBe('store-full');
      expect(await ask({ get: [0, 600] })).toBe('done');
      limit('unlimited');
      expect(await ask({ put: [2000, 50] })).toBe('done');
      for (let i = 0; i < 5; i++) expect(await ask({ put: [4000 + i * 100, 90] })).toBe('done');
      expect(await ask({ get: [4000, 90] })).toBe('done');
      child.kill('SIGKILL');
      await once(child, 'exit');
      const store = await openChunkStore({
        storage: new DirectorySegmentStorage(nodeFileSystem, `${root}/segments`),
        index: await LevelChunkIndex.open(`${root}/index`),
        storeId: STORE_ID,
        chunkBytes: 4096,
      });
      const numbers = [...range(0, 600), ...range(2000, 50), ...range(4000, 90), ...range(4400, 90)];
      await expectChunks(store, Buffer.concat(numbers.map((number) => hashChunk(chunkOf(number)))), numbers);
      expect((await store.verify()).damaged).toEqual([]);
      await store.close();
      rmSync(root, { recursive: true });
    },
  );
});

describe.skipIf(!prlimitWorks)('an index on a disk that is full for real', () => {
  it.each([7, 40, 3000])(
    'writes again when there is room, and keeps what it then wrote (torn after %i bytes)',
    async (spare) => {
      const directory = mkdtempSync(join(tmpdir(), 'pando-index-'));
      const script = `
      import { LevelChunkIndex } from ${JSON.stringify(new URL('./level-chunk-index.ts', import.meta.url).href)};
      import { createInterface } from 'node:readline';
      const index = await LevelChunkIndex.open(${JSON.stringify(directory)});
      for await (const line of createInterface({ input: process.stdin })) {
        const [first, count] = JSON.parse(line);
        const ids = new Uint8Array(count * 32);
        for (let i = 0; i < count; i++) new DataView(ids.buffer).setUint32(i * 32, first + i);
        const answer = await index.write({ ids, places: new Uint8Array(count * 18), count }, false).then(() => 'done', (error) => error.code);
        const readable = index.get(new Uint8Array(32), 0) !== undefined;
        process.stdout.write(answer + ' ' + readable + '\\n');
      }`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const write = async (first: number, count: number): Promise<unknown> => {
        child.stdin.write(`[${first}, ${count}]\n`);
        return (await lines.next()).value;
      };
      expect(await write(0, 10)).toBe('done true');
      const log = readdirSync(directory).find((name) => name.endsWith('.log'))!;
      execFileSync('prlimit', [
        '--pid',
        String(child.pid),
        `--fsize=${statSync(join(directory, log)).size + spare}:`,
      ]);
      expect(await write(1000, 200)).toBe('store-full true');
      expect(await write(2000, 1)).toBe('store-full true');
      execFileSync('prlimit', ['--pid', String(child.pid), '--fsize=unlimited:']);
      for (const first of [3000, 4000, 5000]) expect(await write(first, 400)).toBe('done true');
      child.kill('SIGKILL');
      await once(child, 'exit');
      const index = await LevelChunkIndex.open(directory);
      expect(await index.count()).toBe(10 + 3 * 400);
      await index.close();
      rmSync(directory, { recursive: true });
    },
  );
});
