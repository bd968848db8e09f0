/** `pando token reset --data DIR`: back in, for whoever owns the data directory and has lost every admin's token. */
import { Tokens } from '@pando/access';
import { FileSystemSpaceGuard, systemClock, systemRandom } from '@pando/common';
import { adminTokenFile, resetAdminToken } from './admin-token.ts';
import { openDataDirectory } from './data-directory.ts';
import { openStore } from './store.ts';

/**
 * Makes an admin's token and keeps it in the data directory; those that there are stay good. Opens the store as a server does, because
 * what the catalog is told, its mirror has to know.
 * @throws `store-locked` while a server runs, `store-missing`, and what opening a store throws
 */
export async function resetAdminTokenOffline(path: string): Promise<{ name: string; file: string }> {
  const clock = systemClock;
  const directory = await openDataDirectory(path, { clock, create: false });
  const closers: (() => Promise<void>)[] = [() => directory.catalog.close()];
  try {
    const space = new FileSystemSpaceGuard(directory.path, clock);
    await space.start();
    closers.push(() => space.close());
    const open = await openStore(directory, clock, space);
    closers.push(
      () => open.store.close(),
      () => open.mirror.close(),
      () => open.volumes.close(),
      () => open.fleet.close(),
    );
    const tokens = await Tokens.open({ catalog: open.catalog, clock, random: systemRandom });
    closers.push(() => tokens.close());
    return { ...(await resetAdminToken(tokens, path)), file: adminTokenFile(path) };
  } finally {
    for (const close of closers.reverse()) await close();
  }
}
