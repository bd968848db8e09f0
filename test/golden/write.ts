/**
 * `npm run golden`: writes the golden store of the present format anew. Right only when the format changes on purpose: it then gets a number of
 * its own in story.ts, and the stores of older ones stay.
 *
 * The store is as a killed server leaves it: with writes that are not destaged, under a backup and above it.
 */
import assert from 'node:assert/strict';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SeededRandom } from '@pando/block-device/testing';
import { connect, importVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { contentsOf, GOLDEN_FORMATS, goldenContents, goldenImage, goldenStore } from './story.ts';

const FORMAT = GOLDEN_FORMATS[GOLDEN_FORMATS.length - 1]!;
const GOLDEN_STORE = goldenStore(FORMAT);

await rm(GOLDEN_STORE, { recursive: true, force: true });
const server = await TestServer.start({ dataDirectory: GOLDEN_STORE, args: ['--gc-every', '0'] });
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
  const { format } = JSON.parse(await readFile(join(GOLDEN_STORE, 'store.json'), 'utf8')) as {
    format: number;
  };
  assert.equal(format, FORMAT);
  await server.kill();

  for (const part of ['catalog', 'index']) {
    for (const name of ['LOG', 'LOG.old']) await rm(join(GOLDEN_STORE, part, name), { force: true });
  }
  // What was served is what is served again; asked of a copy, as opening changes it.
  const copy = await TestServer.start();
  try {
    await copy.stop();
    await rm(copy.dataDirectory, { recursive: true });
    await cp(GOLDEN_STORE, copy.dataDirectory, { recursive: true });
    await copy.restart();
    assert.deepEqual(await contentsOf(copy), contents);
  } finally {
    await copy.close();
  }
  await writeFile(goldenContents(FORMAT), `${JSON.stringify(contents, undefined, 2)}\n`);
} finally {
  await server.close();
}
