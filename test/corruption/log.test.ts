/** Damage to the write log: `pando verify` names it, of a store that is served as of one that is not. */
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeFileSystem } from '@pando/common';
import { serve, type Serving } from '@pando/server';
import { openWriteLog } from '@pando/write-log';
import { expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { restOf } from '../support/rest.ts';

it('is named by verify, whether a server has the log open or not', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-log-'));
  const dataDirectory = join(folder, 'data');
  let server: Serving | undefined;
  const start = async (): Promise<Serving> => {
    const address = { host: '127.0.0.1', port: 0 };
    return serve({ dataDirectory, http: address, nbd: address, gcEveryMs: 0, verifyEveryMs: 0 });
  };
  /** A log with one write in `directory`. Resolves to its file. */
  const writeLog = async (directory: string, storeId: Uint8Array): Promise<string> => {
    const log = await openWriteLog({ fs: nodeFileSystem, directory, storeId }, () => undefined);
    log.appendOpen(1, 1, 65_536);
    log.appendWrite(1, 0, Buffer.alloc(65_536, 'x'));
    await log.close();
    return join(directory, (await readdir(directory))[0]!);
  };
  try {
    server = await start();
    await server.close();
    const storeId = Buffer.from(server.storeId.replaceAll('-', ''), 'hex');
    const file = await writeLog(join(dataDirectory, 'log'), storeId);
    const whole = await readFile(file);
    await writeFile(
      file,
      whole.map((byte, i) => (i === 5000 ? byte ^ 1 : byte)),
    );
    const ran = await pando(['verify', '--quick', '--data', dataDirectory]);
    expect(ran).toMatchObject({ status: 1 });
    expect(ran.stdout).toMatch(/log\/0{15}1\.log at byte \d+: /);
    expect(ran.stdout).toContain('the next start names them');
    await writeFile(file, whole);

    server = await start();
    const rest = restOf(server);
    const verify = (): Promise<unknown> => rest.job('/verify', { quick: true });
    expect(await verify()).toMatchObject({ damaged: [] });
    // None of its own, so that it is there as long as the test wants.
    await mkdir(join(folder, 'other'));
    const foreign = await writeLog(join(folder, 'other'), new Uint8Array(16));
    await copyFile(foreign, join(dataDirectory, 'log', '0000900000000000.log'));
    expect(await verify()).toMatchObject({
      damaged: [{ file: 'log', problem: expect.stringContaining('another store') as string }],
    });
  } finally {
    await server?.close();
    await rm(folder, { recursive: true });
  }
});
