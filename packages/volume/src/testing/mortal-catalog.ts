/** A catalog as one process sees it: when that process dies, it can commit no more, the next one can. */
import type { Catalog } from '@pando/catalog';
import { PandoError } from '@pando/common';

export function mortalCatalog(catalog: Catalog): { catalog: Catalog; kill: () => void } {
  let dead = false;
  const alive = <T>(run: () => Promise<T>): Promise<T> =>
    dead ? Promise.reject(new PandoError('store-failed', 'the machine has lost power')) : run();
  return {
    kill: () => (dead = true),
    catalog: {
      get: (table, key) => alive(() => catalog.get(table, key)),
      getMany: (table, keys) => alive(() => catalog.getMany(table, keys)),
      list: (table, options) => alive(() => catalog.list(table, options)),
      commit: (operations) => alive(() => catalog.commit(operations)),
      snapshot: () => catalog.snapshot(),
      bytes: () => catalog.bytes(),
      close: () => Promise.resolve(),
    },
  };
}
