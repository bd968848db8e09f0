/**
 * The data directory: whose it is, which format it has, and who may use it now.
 *
 *     store.json   {"program":"pando","format":1,"storeId":…,"chunkBytes":…,"createdAt":…}
 *     catalog/     LevelDB: the records; its lock is the lock of the whole directory
 *     index/       LevelDB: where chunks are; derived data
 *     segments/    the chunks
 *     log/         the write log
 *     catalog.commits, log.synced   witnesses: how far catalog and log had come for certain
 *
 * Nothing is written before the lock is held. A directory without store.json becomes a store only when it
 * holds nothing that a creation cut short would not have left.
 */
import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openLevelCatalog, type Catalog } from '@pando/catalog';
import {
  CHUNK_BYTES_DEFAULT,
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  fromIoError,
  nodeFileSystem,
  PandoError,
  type Clock,
} from '@pando/common';

export const FORMAT = 1;

export interface StoreFile {
  readonly program: 'pando';
  readonly format: number;
  readonly storeId: string;
  readonly chunkBytes: number;
  readonly createdAt: string;
}

export interface DataDirectory {
  readonly path: string;
  readonly store: StoreFile;
  /** The 16 bytes of the store's id. */
  readonly storeId: Uint8Array;
  readonly isNew: boolean;
  /** Open, and with it the lock. The caller closes it, last of all. */
  readonly catalog: Catalog;
  readonly index: string;
  readonly segments: string;
  readonly log: string;
}

const STORE_FILE = 'store.json';
const TEMPORARY_FILE = 'store.json.new';
/** What a creation cut short can leave, and what file systems put into their own root. */
const HARMLESS = new Set(['catalog', 'catalog.commits', TEMPORARY_FILE, 'lost+found']);

/**
 * Opens the directory, or makes a store in it when it is empty or missing.
 * @throws `store-foreign`, `store-newer`, `store-locked`, `store-missing` (unless `create`), `store-full`, `catalog-corrupt`, `request-invalid` for a chunkBytes
 * that the store does not have or that no store can have
 */
export async function openDataDirectory(
  path: string,
  options: {
    readonly clock: Clock;
    readonly create: boolean;
    readonly chunkBytes?: number | undefined;
    /** Open it although records of the catalog are lost for good. */
    readonly acceptCatalogDamage?: boolean;
  },
): Promise<DataDirectory> {
  const { chunkBytes } = options;
  if (chunkBytes !== undefined) checkChunkBytes(chunkBytes);
  const before = await inspect(path);
  if (before === undefined && !options.create) {
    throw new PandoError('store-missing', `there is no store in ${path}`);
  }
  if (before === undefined) await makeDirectory(path);
  const catalog = await openLevelCatalog(join(path, 'catalog'), {
    witness: join(path, 'catalog.commits'),
    mustExist: before !== undefined,
    acceptDamage: options.acceptCatalogDamage === true,
  });
  try {
    // Whoever held the lock until now may have made the store.
    const found = await inspect(path);
    const store = found ?? (await create(path, chunkBytes ?? CHUNK_BYTES_DEFAULT, options.clock));
    if (chunkBytes !== undefined && chunkBytes !== store.chunkBytes) {
      throw new PandoError(
        'request-invalid',
        `the store in ${path} has chunks of ${store.chunkBytes} bytes, for good; it cannot have ${chunkBytes}`,
      );
    }
    const part = (name: string): string => join(path, name);
    for (const name of ['index', 'segments', 'log']) await makeDirectory(part(name));
    return {
      path,
      store,
      storeId: Uint8Array.from(Buffer.from(store.storeId.replaceAll('-', ''), 'hex')),
      isNew: found === undefined,
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

/** What store.json says; undefined where a store can be made. @throws `store-foreign`, `store-newer` */
async function inspect(path: string): Promise<StoreFile | undefined> {
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
  if (names.includes(STORE_FILE)) return readStoreFile(join(path, STORE_FILE));
  const foreign = names.filter((name) => !HARMLESS.has(name));
  if (foreign.length > 0) {
    throw new PandoError(
      'store-foreign',
      `${path} is not empty and holds no store (there is ${JSON.stringify(foreign[0])})`,
    );
  }
  return undefined;
}

async function readStoreFile(path: string): Promise<StoreFile> {
  let found: Partial<StoreFile> | null;
  try {
    found = JSON.parse(await readFile(path, 'utf8')) as Partial<StoreFile> | null;
  } catch (error) {
    throw new PandoError('store-foreign', `cannot read ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (found?.program !== 'pando' || !Number.isSafeInteger(found.format)) {
    throw new PandoError('store-foreign', `${path} belongs to another program`);
  }
  if (found.format! > FORMAT) {
    throw new PandoError(
      'store-newer',
      `${path} says format ${found.format!}; this Pando knows up to ${FORMAT}`,
    );
  }
  const { format, storeId, chunkBytes, createdAt } = found;
  if (
    format !== FORMAT ||
    typeof storeId !== 'string' ||
    !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(storeId) ||
    typeof chunkBytes !== 'number' ||
    !isChunkBytes(chunkBytes) ||
    typeof createdAt !== 'string'
  ) {
    throw new PandoError('store-foreign', `${path} does not hold what a store of format ${FORMAT} has there`);
  }
  return { program: 'pando', format, storeId, chunkBytes, createdAt };
}

/** Writes store.json so that it is there wholly or not at all. */
async function create(path: string, chunkBytes: number, clock: Clock): Promise<StoreFile> {
  const store: StoreFile = {
    program: 'pando',
    format: FORMAT,
    storeId: randomUUID(),
    chunkBytes,
    createdAt: new Date(clock.now()).toISOString(),
  };
  const temporary = join(path, TEMPORARY_FILE);
  try {
    await nodeFileSystem.remove(temporary).catch(() => undefined);
    const file = await nodeFileSystem.open(temporary, 'create');
    try {
      await file.write([Buffer.from(`${JSON.stringify(store)}\n`)], 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await nodeFileSystem.rename(temporary, join(path, STORE_FILE));
    await nodeFileSystem.syncDirectory(path);
  } catch (error) {
    throw fromIoError(error, `creating the store in ${path}`, 'store-failed');
  }
  return store;
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await nodeFileSystem.makeDirectory(path);
  } catch (error) {
    throw fromIoError(error, `creating ${path}`, 'store-foreign');
  }
}

function isChunkBytes(bytes: number): boolean {
  return bytes >= CHUNK_BYTES_MIN && bytes <= CHUNK_BYTES_MAX && Number.isInteger(Math.log2(bytes));
}

function checkChunkBytes(bytes: number): void {
  if (isChunkBytes(bytes)) return;
  throw new PandoError(
    'request-invalid',
    `a chunk has a power of two of bytes from ${CHUNK_BYTES_MIN} to ${CHUNK_BYTES_MAX}, not ${bytes}`,
  );
}
