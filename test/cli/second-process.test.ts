/** A second process on a directory that is in use is refused, whatever it wants there, and the first one goes on undisturbed. */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as engine from '@pando/server';
import { expect, it } from 'vitest';
import { connect, createVm, MiB, mustVerify, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { pando } from './pando.ts';

/** Every file with its hash; of the LevelDB databases not the text that they write for people. */
async function hashed(directory: string): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(directory, { recursive: true })).sort()) {
    const path = join(directory, name);
    if (/\/LOG(\.old)?$/.test(name) || !(await stat(path)).isFile()) continue;
    lines.push(
      `${name} ${createHash('sha256')
        .update(await readFile(path))
        .digest('hex')}`,
    );
  }
  return lines;
}

it('a second server, and every tool that works without one, is refused and harms nothing', async () => {
  const server = await TestServer.start({ args: ['--gc-every', '0', '--verify-every', '0'] });
  try {
    await createVm(server, 'web', MiB);
    const before = await connect(server, 'web/disk0');
    await before.write(0, Buffer.alloc(8192, 1));
    await before.close();
    // Destaged, so that the files stand still.
    expect(await server.stop()).toBe(0);
    await server.restart();
    const client = await connect(server, 'web/disk0');
    const files = await hashed(server.dataDirectory);
    expect(files.length).toBeGreaterThan(5);

    const path = server.dataDirectory;
    const address = { host: '127.0.0.1', port: 0 };
    const source = { parts: () => Promise.reject(new Error('it is read')) as never };
    const seconds: readonly (() => Promise<unknown>)[] = [
      () => engine.serve({ dataDirectory: path, http: address, nbd: address }),
      () => engine.verifyOffline(path),
      () => engine.verifyOffline(path, {}, { resume: true }),
      () => engine.rebuildIndex(path),
      () => engine.repairOffline(path, source),
    ];
    for (const second of seconds) await expect(second()).rejects.toMatchObject({ code: 'store-locked' });
    const ran = await pando(['verify', '--rebuild-index', '--data', path]);
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringContaining('(store-locked)') as string });
    expect(await hashed(server.dataDirectory)).toEqual(files);

    await client.write(4096, Buffer.alloc(4096, 2));
    await client.flush();
    await client.close();
    await server.rest.must('POST', '/vms/web/backups', { name: 'after' });
    await server.kill();
    await server.restart();
    const disk = await readExport(server, 'web/disk0');
    expect(disk.subarray(0, 4096).equals(Buffer.alloc(4096, 1))).toBe(true);
    expect(disk.subarray(4096, 8192).equals(Buffer.alloc(4096, 2))).toBe(true);
    await mustVerify(server);
  } finally {
    await server.close();
  }
});
