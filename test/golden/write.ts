/**
 * `npm run golden`: writes the golden stores of today anew, or with `-- FORMAT` one of them. Right only when the format changes on purpose: it then gets a
 * number of its own in story.ts, and the stores of older ones stay.
 *
 * A store is as a killed server leaves it: with writes that are not destaged, under a backup and above it.
 */
import assert from 'node:assert/strict';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SeededRandom } from '@pando/block-device/testing';
import { connect, importVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { contentsOf, goldenContents, goldenImage, goldenStore, KEYED, PLAIN } from './story.ts';

const [asked] = process.argv.slice(2);
for (const { format, flags } of [PLAIN, KEYED])
  if (asked === undefined || asked === String(format)) await writeGolden(format, flags);

async function writeGolden(format: number, flags: readonly string[]): Promise<void> {
  const store = goldenStore(format);
  await rm(store, { recursive: true, force: true });
  const server = await TestServer.start({ dataDirectory: store, args: ['--gc-every', '0', ...flags] });
  try {
    const random = new SeededRandom(1);
    await importVm(server, 'golden', goldenImage(1));
    await server.rest.must('POST', '/vms', {
      name: 'database',
      disks: [
        { name: 'system', sizeBytes: 100 * 1024 },
        { name: 'tables', sizeBytes: 66 * MiB },
      ],
    });
    const tables = await connect(server, 'database/tables');
    await tables.write(3 * 4096 + 512, random.bytes(9_000 - (9_000 % 512)));
    await tables.write(65 * MiB, Buffer.alloc(8192, 'row'));
    await tables.close();
    await server.rest.must('POST', '/vms/database/backups', { name: 'first' });
    await server.rest.must('POST', '/vms/golden/clone', { name: 'web', count: 2 });
    await server.rest.must('POST', '/vms/golden/backups', { name: 'gone' });
    await server.rest.must('DELETE', '/vms/golden');
    // Everything is destaged, and the segments are sealed.
    await server.stop();
    await server.restart();

    const web = await connect(server, 'web-1/disk0');
    const changed = await connect(server, 'database/tables');
    await web.write(1024, random.bytes(512));
    await web.zero(520 * 1024, 8192);
    await changed.zero(65 * MiB, 4096);
    await server.rest.must('POST', '/vms/web-1/backups', { name: 'unsettled' });
    await web.write(1536, random.bytes(5120));
    await changed.write(0, random.bytes(4096));
    await changed.flush();
    const contents = await contentsOf(server);
    const written = JSON.parse(await readFile(join(store, 'store.json'), 'utf8')) as { format: number };
    assert.equal(written.format, format);
    await server.kill();

    for (const part of ['catalog', 'index']) {
      for (const name of ['LOG', 'LOG.old']) await rm(join(store, part, name), { force: true });
    }
    // What was served is what is served again; asked of a copy, as opening changes it.
    const copy = await TestServer.start();
    try {
      await copy.stop();
      await rm(copy.dataDirectory, { recursive: true });
      await cp(store, copy.dataDirectory, { recursive: true });
      await copy.restart();
      assert.deepEqual(await contentsOf(copy), contents);
    } finally {
      await copy.close();
    }
    await writeFile(goldenContents(format), `${JSON.stringify(contents, undefined, 2)}\n`);
  } finally {
    await server.close();
  }
}
