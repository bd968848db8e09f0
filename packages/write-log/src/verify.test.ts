/** Looking for damage in a log that is in use: what is damaged is named, nothing else ever is, and nothing is changed. */
import { between, CrashFileSystem, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { openWriteLog, verifyLog, type DamagedPlace, type WriteLog } from './index.ts';

const storeId = new Uint8Array(16).fill(7);
const seed = runSeed();

const verify = (fs: CrashFileSystem, store = storeId): Promise<DamagedPlace[]> =>
  verifyLog({ fs, directory: 'log', storeId: store });

const open = (fs: CrashFileSystem, fileBytes = 4000): Promise<WriteLog> =>
  openWriteLog({ fs, directory: 'log', storeId, fileBytes }, () => undefined);

/** Ninety writes of 100 bytes in several files, each synced, and the log still open. */
async function written(): Promise<{ fs: CrashFileSystem; log: WriteLog; files: string[] }> {
  const fs = new CrashFileSystem();
  const log = await open(fs);
  log.appendOpen(3, 9, 1 << 20);
  for (let i = 0; i < 90; i++) {
    log.appendWrite(3, i * 100, fillRandom(seededRandom(seed + i), new Uint8Array(100)));
    await log.sync();
  }
  const files = await fs.list('log');
  expect(files.length).toBeGreaterThan(2);
  return { fs, log, files };
}

describe(`verification of a log (seed ${seed})`, () => {
  it.each([0, 1, -1])(
    'names a flipped bit of file %i, whether the log is open or not, and leaves it alone',
    async (which) => {
      const { fs, log, files } = await written();
      expect(await verify(fs)).toEqual([]);
      const file = files.at(which)!;
      fs.flip(`log/${file}`, 64 + 40 + 20, 4);
      const before = fs.paths().map((path) => Buffer.from(fs.bytesOf(path)).toString('hex'));
      const found = await verify(fs);
      expect(found).toEqual([
        { file, offset: expect.any(Number) as number, problem: expect.any(String) as string },
      ]);
      await log.close();
      expect(await verify(fs)).toEqual(found);
      expect(fs.paths().map((path) => Buffer.from(fs.bytesOf(path)).toString('hex'))).toEqual(before);
      await expect(open(fs)).rejects.toMatchObject({ code: 'log-corrupt' });
    },
  );

  it('names a file that is gone, one that is cut, and one of another store', async () => {
    const { fs, files } = await written();
    await fs.remove(`log/${files[1]!}`);
    expect(await verify(fs)).toMatchObject([{ file: files[2] }]);
    const cut = await written();
    cut.fs.damage(`log/${cut.files.at(-1)!}`, (bytes) => bytes.slice(0, 100));
    expect(await verify(cut.fs)).toMatchObject([{ file: cut.files.at(-1) }]);
    expect(await verify(cut.fs, new Uint8Array(16))).toMatchObject([
      { file: '', problem: expect.stringContaining('belongs to another store') as string },
    ]);
  });

  it('takes the end that was not synced for no damage', async () => {
    const { fs, log, files } = await written();
    log.appendWrite(3, 0, new Uint8Array(100));
    await log.written();
    const last = `log/${files.at(-1)!}`;
    fs.damage(last, (bytes) => bytes.slice(0, -30));
    expect(await verify(fs)).toEqual([]);
  });

  it('finds nothing in a log that is whole, whatever is written, synced and let go of meanwhile', async () => {
    const random = seededRandom(seed);
    const fs = new CrashFileSystem();
    // Everything takes its turns, so that one looks at the middle of all that the other does.
    fs.schedule = async (_operation, run) => {
      for (let turns = between(random, 0, 3); turns > 0; turns--)
        await new Promise((resolve) => setImmediate(resolve));
      return run();
    };
    const log = await open(fs, 1000);
    const end = new AbortController();
    const looking = (async () => {
      let looks = 0;
      for (; !end.signal.aborted; looks++) expect(await verify(fs)).toEqual([]);
      return looks;
    })();
    let kept = log.nextPosition;
    for (let i = 0; i < 600; i++) {
      log.appendWrite(3, i, new Uint8Array(between(random, 0, 400)));
      const dice = random();
      if (dice < 0.4) await log.sync();
      else if (dice < 0.6) await log.written();
      else if (dice < 0.7) {
        await log.sync();
        await log.release(random() < 0.3 ? log.nextPosition : kept);
        kept = log.nextPosition;
      }
    }
    end.abort();
    expect(await looking).toBeGreaterThan(20);
    await log.close();
  });
});
