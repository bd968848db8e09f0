/** A catalog made anew, cut short anywhere: the damaged one is never served in between. */
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { nodeFileSystem, systemClock } from '@pando/common';
import { findAnchors, openCatalogMirror } from '@pando/catalog-mirror';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openDataDirectory } from './data-directory.ts';
import { rebuildCatalog } from './rebuild-catalog.ts';
import { openChunks } from './store.ts';

let path: string;
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'pando-server-'));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(path, { recursive: true });
});

test('a rebuild that is cut short leaves nothing that opens but the new catalog', async () => {
  await makeStore();
  // The newest records are gone, and nothing but the witness tells.
  for (const name of await readdir(join(path, 'catalog'))) {
    const file = join(path, 'catalog', name);
    if (name.endsWith('.log')) await truncate(file, Math.floor((await readFile(file)).length / 2));
  }
  let cut = 0;
  for (let isDone = false; !isDone && cut < 20; cut++) {
    cutShortAfter(cut);
    await rebuildCatalog(path, {}, { quick: true }).catch(() => undefined);
    vi.restoreAllMocks();
    const { catalog } = await openDataDirectory(path, { clock: systemClock, create: true }).catch(
      (error: unknown) => {
        expect(error, `cut after ${cut}`).toMatchObject({ code: 'catalog-corrupt' });
        return { catalog: undefined };
      },
    );
    if (catalog === undefined) continue;
    isDone = true;
    expect(await catalog.list('vm'), `cut after ${cut}`).toHaveLength(50);
    await catalog.close();
  }
  expect(cut).toBeGreaterThan(3);
});

test('of a mirror that is damaged nothing is taken, of the one before only when asked to', async () => {
  await makeStore();
  const directory = await openDataDirectory(path, { clock: systemClock, create: false });
  const { catalog, storeId } = directory;
  const store = await openChunks(directory);
  const mirror = await openCatalogMirror({ catalog, store, storeId, clock: systemClock });
  await mirror.catalog.commit([{ type: 'put', table: 'vm', key: 'late', value: { version: 1, disks: [] } }]);
  await mirror.close();
  const [newest] = await findAnchors(store, storeId);
  await store.close();
  await catalog.close();
  await rm(join(path, 'catalog'), { recursive: true });
  for (const name of await readdir(join(path, 'segments'))) {
    const file = join(path, 'segments', name);
    const bytes = await readFile(file);
    const at = bytes.indexOf(newest!.root.id); // in the header of its run, which comes before the footer
    if (at < 0) continue;
    bytes[at]! ^= 1;
    await writeFile(file, bytes);
  }
  await expect(rebuildCatalog(path, {}, { quick: true })).rejects.toMatchObject({
    code: 'catalog-corrupt',
    message: expect.stringContaining('--force') as string,
  });
  const { catalog: report } = await rebuildCatalog(path, { force: true }, { quick: true });
  expect(report).toMatchObject({ vms: 50, unreadableMirrors: 1 });
});

/** Lets so many changes of the data directory itself be done, and no more. */
function cutShortAfter(changes: number): void {
  let left = changes;
  const { rename, syncDirectory } = nodeFileSystem;
  const count = (isCounted: boolean, change: () => Promise<void>): Promise<void> =>
    !isCounted || left-- > 0 ? change() : Promise.reject(new Error('cut short'));
  vi.spyOn(nodeFileSystem, 'rename').mockImplementation((from, to) =>
    count(dirname(from) === path, () => rename(from, to)),
  );
  vi.spyOn(nodeFileSystem, 'syncDirectory').mockImplementation((of) =>
    count(of === path, () => syncDirectory(of)),
  );
}

async function makeStore(): Promise<void> {
  const directory = await openDataDirectory(path, { clock: systemClock, create: true });
  const { catalog, storeId } = directory;
  const store = await openChunks(directory);
  const mirror = await openCatalogMirror({ catalog, store, storeId, clock: systemClock });
  for (let n = 0; n < 50; n++)
    await mirror.catalog.commit([
      { type: 'put', table: 'vm', key: `${n}`, value: { version: 1, disks: [] } },
    ]);
  await mirror.close();
  await store.close();
  await catalog.close();
}
