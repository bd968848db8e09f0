/**
 * store.json: what store a data directory holds. Written when the store is made, and when its format is raised.
 *
 * All that matters in it stands in the header of every segment too, the key of ids included, so a damaged one is made again from those. Its last
 * field is the CRC-32 of the line without it, so that damage is told from a store.json of somebody else.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { DirectorySegmentStorage, readStoreOf, type StoreIdentity } from '@pando/chunk-store';
import {
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  fromIoError,
  nodeFileSystem,
  PandoError,
  type Clock,
} from '@pando/common';

/** 2: the catalog is mirrored into the segments, and whoever changes it has to see to that. */
export const FORMAT = 2;
/** The same in a store whose ids are keyed, and in no other: programs that know nothing of keys refuse it. */
const FORMAT_KEYED = 3;
export const STORE_FILE = 'store.json';
export const TEMPORARY_FILE = 'store.json.new';

export interface StoreFile {
  readonly program: 'pando';
  readonly format: number;
  readonly storeId: string;
  readonly chunkBytes: number;
  /** With which ids are keyed, 64 hex digits; absent when they are not. A secret: into no log and no answer. */
  readonly hashKey?: string;
  readonly createdAt: string;
}

/** What to write for a store of today. */
export function storeFile(store: StoreIdentity, createdAt: number): StoreFile {
  const hex = Buffer.from(store.storeId).toString('hex');
  return {
    program: 'pando',
    format: store.hashKey === undefined ? FORMAT : FORMAT_KEYED,
    storeId: hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'),
    chunkBytes: store.chunkBytes,
    ...(store.hashKey === undefined ? {} : { hashKey: Buffer.from(store.hashKey).toString('hex') }),
    createdAt: new Date(createdAt).toISOString(),
  };
}

/** What the segments of the store say of it. */
export function identityOf({ storeId, chunkBytes, hashKey }: StoreFile): StoreIdentity {
  return {
    storeId: bytesOfHex(storeId.replaceAll('-', '')),
    chunkBytes,
    ...(hashKey === undefined ? {} : { hashKey: bytesOfHex(hashKey) }),
  };
}

function bytesOfHex(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

/**
 * Reads the file `path`. Undefined when it is damaged: no JSON, without its fields, or with another CRC.
 * @throws `store-foreign`, `store-newer`, `store-failed`
 */
export async function readStoreFile(path: string): Promise<StoreFile | undefined> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw fromIoError(error, `reading ${path}`, 'store-failed');
  });
  let found: (Partial<StoreFile> & { readonly crc?: unknown }) | null;
  try {
    found = JSON.parse(text) as typeof found;
  } catch {
    return undefined;
  }
  if (typeof found !== 'object' || found === null) return undefined;
  const { crc, ...rest } = found;
  if (crc !== undefined && crc !== crcOf(rest)) return undefined;
  if (rest.program !== 'pando' || !Number.isSafeInteger(rest.format)) {
    throw new PandoError('store-foreign', `${path} belongs to another program`);
  }
  if (rest.format! > FORMAT_KEYED) {
    throw new PandoError(
      'store-newer',
      `${path} says format ${rest.format!}; this Pando knows up to ${FORMAT_KEYED}`,
    );
  }
  const { program: _, format, storeId, chunkBytes, hashKey, createdAt, ...unknown } = rest;
  if (
    // The name of a field is damaged; when it is that of the CRC, nothing else tells.
    Object.keys(unknown).length > 0 ||
    !(format! >= 1) ||
    typeof storeId !== 'string' ||
    !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(storeId) ||
    typeof chunkBytes !== 'number' ||
    !isChunkBytes(chunkBytes) ||
    // What is keyed must not be opened as if it were not, nor the other way.
    (hashKey !== undefined) !== (format === FORMAT_KEYED) ||
    (hashKey !== undefined && !(typeof hashKey === 'string' && /^[0-9a-f]{64}$/.test(hashKey))) ||
    typeof createdAt !== 'string'
  )
    return undefined;
  return {
    ...{ program: 'pando', format: format!, storeId, chunkBytes },
    ...(hashKey === undefined ? {} : { hashKey }),
    createdAt,
  };
}

/** Writes the store.json of `directory` so that it is there wholly or not at all. @throws `store-full`, `store-failed` */
export async function writeStoreFile(directory: string, store: StoreFile): Promise<void> {
  const temporary = join(directory, TEMPORARY_FILE);
  try {
    await nodeFileSystem.remove(temporary).catch(() => undefined);
    const file = await nodeFileSystem.open(temporary, 'create');
    try {
      await file.write([Buffer.from(`${JSON.stringify({ ...store, crc: crcOf(store) })}\n`)], 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await nodeFileSystem.rename(temporary, join(directory, STORE_FILE));
    await nodeFileSystem.syncDirectory(directory);
  } catch (error) {
    throw fromIoError(error, `writing ${join(directory, STORE_FILE)}`, 'store-failed');
  }
}

/** What the store.json of `directory` has to say, from the headers of its segments; undefined when there are none that agree. */
export async function storeOfSegments(directory: string, clock: Clock): Promise<StoreFile | undefined> {
  const storage = new DirectorySegmentStorage(nodeFileSystem, join(directory, 'segments'));
  try {
    const found = await readStoreOf(storage);
    return found === undefined ? undefined : storeFile(found, clock.now());
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  } finally {
    await storage.close();
  }
}

export function isChunkBytes(bytes: number): boolean {
  return bytes >= CHUNK_BYTES_MIN && bytes <= CHUNK_BYTES_MAX && Number.isInteger(Math.log2(bytes));
}

function crcOf(store: Partial<StoreFile>): number {
  return crc32(JSON.stringify(store));
}
