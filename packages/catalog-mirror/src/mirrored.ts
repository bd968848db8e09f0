/** The catalog for those whose commits are mirrored. */
import type { Catalog } from '@pando/catalog';

/** A catalog whose commits go through `commit`. */
export function mirrored(catalog: Catalog, commit: Catalog['commit']): Catalog {
  return {
    get: (table, key) => catalog.get(table, key),
    getMany: (table, keys) => catalog.getMany(table, keys),
    list: (table, options) => catalog.list(table, options),
    commit,
    snapshot: () => catalog.snapshot(),
    bytes: () => catalog.bytes(),
    get failure() {
      return catalog.failure;
    },
    ...(catalog.verify === undefined ? {} : { verify: (options) => catalog.verify!(options) }),
    close: () => catalog.close(),
  };
}
