/**
 * The data directory: whose it is, which format it has, and who may use it now.
 *
 *     store.json   {"program":"pando","format":2,"storeId":…,"chunkBytes":…,"createdAt":…,"crc":…}
 *     catalog/     LevelDB: the records; its lock is the lock of the whole directory
 *     index/       LevelDB: where chunks are; derived data
 *     segments/    the chunks
 *     log/         the write log
 *     catalog.commits, log.synced   witnesses: how far catalog and log had come for certain
 *
 * Nothing is written before the lock is held. A directory without store.json becomes a store only when it
 * holds nothing that a creation cut short would not have left. In one that has all else, store.json is made again.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { openLevelCatalog, type Catalog } from '@pando/catalog';
import { HASH_KEY_BYTES, type StoreIdentity } from '@pando/chunk-store';
import {
  CHUNK_BYTES_DEFAULT,
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  fromIoError,
  nodeFileSystem,
  PandoError,
  type Clock,
} from '@pando/common';
import { refuseNewerParts } from './refuse-newer.ts';
import {
  FORMAT,
  identityOf,
  isChunkBytes,
  readStoreFile,
  STORE_FILE,
  storeFile,
  storeOfSegments,
  TEMPORARY_FILE,
  writeStoreFile,
  type StoreFile,
} from './store-file.ts';

export interface DataDirectory {
  readonly path: string;
  readonly store: StoreFile;
  /** The 16 bytes of the store's id. */
  readonly storeId: Uint8Array;
  /** What its segments say of it. */
  readonly identity: StoreIdentity;
  readonly isNew: boolean;
  /** Why store.json had to be made again, if so. */
  readonly mended: string | undefined;
  /** Open, and with it the lock. The caller closes it, last of all. */
  readonly catalog: Catalog;
  readonly index: string;
  readonly segments: string;
  readonly log: string;
}

/** What every store has, and nothing else. */
const PARTS = ['catalog', 'segments', 'log'];
/** What a creation cut short can leave, and what file systems put into their own root. */
const HARMLESS = new Set(['catalog', 'catalog.commits', TEMPORARY_FILE, 'lost+found']);

/**
 * Opens the directory, or makes a store in it when it is empty or missing.
 * @throws `store-foreign`, `store-newer`, `store-locked`, `store-missing` (unless `create`), `store-full`, `catalog-corrupt`, `request-invalid` for a chunkBytes
 * that the store does not have or that no store can have, `store-hash-fixed` for a keyedHash that it does not have
 */
export async function openDataDirectory(
  path: string,
  options: {
    readonly clock: Clock;
    readonly create: boolean;
    readonly chunkBytes?: number | undefined;
    /** Whether ids are keyed, with a key of the store's own. Absent: as they are, and not in a new store. */
    readonly keyedHash?: boolean | undefined;
    /** Open it although records of the catalog are lost for good. */
    readonly acceptCatalogDamage?: boolean;
  },
): Promise<DataDirectory> {
  const { chunkBytes, keyedHash } = options;
  if (chunkBytes !== undefined) checkChunkBytes(chunkBytes);
  const before = await inspect(path);
  if (before === undefined && !options.create) {
    throw new PandoError('store-missing', `there is no store in ${path}`);
  }
  if (before === undefined) await makeDirectory(path);
  else await refuseNewerParts(path);
  const catalog = await openLevelCatalog(join(path, 'catalog'), {
    witness: join(path, 'catalog.commits'),
    mustExist: before !== undefined,
    acceptDamage: options.acceptCatalogDamage === true,
  });
  try {
    // Whoever held the lock until now may have made the store.
    const found = await inspect(path);
    const mended = typeof found === 'string' ? found : undefined;
    const store =
      typeof found === 'object'
        ? found
        : mended !== undefined
          ? await mend(path, mended, options.clock)
          : await create(path, chunkBytes ?? CHUNK_BYTES_DEFAULT, keyedHash === true, options.clock);
    if (chunkBytes !== undefined && chunkBytes !== store.chunkBytes) {
      throw new PandoError(
        'request-invalid',
        `the store in ${path} has chunks of ${store.chunkBytes} bytes, for good; it cannot have ${chunkBytes}`,
      );
    }
    const isKeyed = store.hashKey !== undefined;
    if (keyedHash !== undefined && keyedHash !== isKeyed) {
      throw new PandoError(
        'store-hash-fixed',
        `the store in ${path} was made with${isKeyed ? '' : 'out'} keyed ids, for good; keyed-hash cannot be ${keyedHash} for it`,
      );
    }
    const identity = identityOf(store);
    const part = (name: string): string => join(path, name);
    for (const name of ['index', 'segments', 'log']) await makeDirectory(part(name));
    for (const name of ['catalog', 'index']) await closeToOthers(part(name));
    // Those that were there may be there since a process that was killed before their names, or that of store.json, were durable.
    await nodeFileSystem.syncDirectory(path).catch((error: unknown) => {
      throw fromIoError(error, `opening ${path}`, 'store-failed');
    });
    return {
      path,
      store,
      storeId: identity.storeId,
      identity,
      isNew: found === undefined,
      mended: mended === undefined ? undefined : `${STORE_FILE} ${mended}`,
      catalog,
      index: part('index'),
      segments: part('segments'),
      log: part('log'),
    };
  } catch (error) {
    await catalog.close();
    throw error;
  }
}

/**
 * What store.json says, or what is wrong with it although there is a store; undefined where a store can be made.
 * @throws `store-foreign`, `store-newer`, `store-failed`
 */
async function inspect(path: string): Promise<StoreFile | string | undefined> {
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new PandoError(
      'store-foreign',
      `cannot use ${path} as a data directory: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  const hasParts = PARTS.every((part) => names.includes(part));
  if (names.includes(STORE_FILE)) {
    const store = await readStoreFile(join(path, STORE_FILE));
    if (store !== undefined) return store;
    if (hasParts) return 'is damaged';
    throw new PandoError(
      'store-foreign',
      `${join(path, STORE_FILE)} is not what a store of format ${FORMAT} has there`,
    );
  }
  if (hasParts) return 'is missing';
  const foreign = names.filter((name) => !HARMLESS.has(name));
  if (foreign.length > 0) {
    throw new PandoError(
      'store-foreign',
      `${path} is not empty and holds no store (there is ${JSON.stringify(foreign[0])})`,
    );
  }
  return undefined;
}

/**
 * Makes the store that is to be there. Its key is durable, in store.json, before there is any segment, and in the header of each segment, synced, before any
 * run: nothing is ever named with a key that a crash could take.
 */
async function create(path: string, chunkBytes: number, isKeyed: boolean, clock: Clock): Promise<StoreFile> {
  const storeId = Uint8Array.from(Buffer.from(randomUUID().replaceAll('-', ''), 'hex'));
  const hashKey = isKeyed ? Uint8Array.from(randomBytes(HASH_KEY_BYTES)) : undefined;
  const store = storeFile({ storeId, chunkBytes, hashKey }, clock.now());
  await writeStoreFile(path, store);
  return store;
}

/** store.json again, from the segments. @throws `store-foreign` */
async function mend(path: string, problem: string, clock: Clock): Promise<StoreFile> {
  const store = await storeOfSegments(path, clock);
  if (store === undefined) {
    throw new PandoError(
      'store-foreign',
      `${join(path, STORE_FILE)} ${problem}, and there are no segments beside it that it could be made again from`,
    );
  }
  await writeStoreFile(path, store);
  return store;
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await nodeFileSystem.makeDirectory(path);
  } catch (error) {
    throw fromIoError(error, `creating ${path}`, 'store-foreign');
  }
}

/**
 * LevelDB makes its files readable for everybody, and secrets of webhooks are in some: so nobody else gets into its directories. They may be
 * of an older Pando, which did not see to it.
 */
async function closeToOthers(directory: string): Promise<void> {
  const { mode } = await stat(directory);
  if ((mode & 0o077) === 0) return;
  // Where there are no permissions to set, there are none to go by.
  await chmod(directory, 0o700).catch(() => undefined);
}

function checkChunkBytes(bytes: number): void {
  if (isChunkBytes(bytes)) return;
  throw new PandoError(
    'request-invalid',
    `a chunk has a power of two of bytes from ${CHUNK_BYTES_MIN} to ${CHUNK_BYTES_MAX}, not ${bytes}`,
  );
}
