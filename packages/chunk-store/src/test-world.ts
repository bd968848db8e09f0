/** What the tests of this package share: chunks by number, a store on a disk that fails, an index that forgets. */
import { ID_BYTES, isPandoError, type FileSystem } from '@pando/common';
import { CrashFileSystem } from '@pando/common/testing';
import { openChunkStore } from './chunk-store.ts';
import { DirectorySegmentStorage } from './directory-segment-storage.ts';
import type { ChunkStoreLimits } from './limits.ts';
import { MemoryChunkIndex } from './memory-chunk-index.ts';
import type { StoreIdentity } from './segment-format.ts';
import type { ChunkIndex, ChunkStore, SegmentStorage, WriteSession } from './types.ts';

export const STORE_ID = new Uint8Array(16).map((_, i) => i + 1);
export const CHUNK = 4096;
/** Of the worlds whose ids are keyed. */
export const HASH_KEY = new Uint8Array(32).map((_, i) => 0x80 + i);
/** `PANDO_KEYED=1 vitest run packages/chunk-store`: the whole room over keyed ids. */
const HASH_KEY_DEFAULT = process.env['PANDO_KEYED'] === '1' ? HASH_KEY : undefined;
export const DIRECTORY = 'segments';

/** The chunk of a number: every number has another one; every third one does not compress. */
export function chunkOf(number: number, chunkBytes = CHUNK): Uint8Array {
  const words = new Uint32Array(chunkBytes / 4);
  let state = Math.imul(number + 1, 2654435761) >>> 0;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = number % 3 === 0 || i < 8 ? state : i;
  }
  words[0] = number + 1;
  return new Uint8Array(words.buffer);
}

export function chunksOf(numbers: readonly number[], chunkBytes = CHUNK): Uint8Array {
  return new Uint8Array(Buffer.concat(numbers.map((number) => chunkOf(number, chunkBytes))));
}

export function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

export function idAt(ids: Uint8Array, i: number): Uint8Array {
  return ids.slice(i * ID_BYTES, (i + 1) * ID_BYTES);
}

/** Writes chunks by number, flushes, and releases the session. Resolves to the ids. */
export async function put(store: ChunkStore, numbers: readonly number[]): Promise<Uint8Array> {
  const session = store.openSession();
  try {
    const ids = await session.writeChunks(chunksOf(numbers, store.chunkBytes), numbers.length);
    await session.flush();
    return ids;
  } finally {
    session.release();
  }
}

/** Reads every chunk back and compares; names the first that is not what it was. */
export async function expectChunks(
  store: ChunkStore,
  ids: Uint8Array,
  numbers: readonly number[],
): Promise<void> {
  for (let i = 0; i < numbers.length; i++) {
    const bytes = await store.readChunk(ids, i * ID_BYTES);
    if (!Buffer.from(bytes).equals(chunkOf(numbers[i]!, store.chunkBytes))) {
      throw new Error(`chunk ${numbers[i]} reads as something else`);
    }
  }
}

/** A leaf over up to 128 ids, stored through the session. */
export async function putLeaf(session: WriteSession, ids: Uint8Array): Promise<Uint8Array> {
  const node = new Uint8Array(4096);
  node.set(ids.subarray(0, 4096));
  return session.writeNodes(node, 1, 1);
}

interface Batch {
  readonly ids: Uint8Array;
  readonly places: Uint8Array;
  readonly count: number;
  readonly deletes?: Uint8Array;
}

/**
 * An index whose machine can lose power: of the batches since the last mark, durable ones stay, and the others
 * stay or go each by itself.
 */
export class CrashIndex extends MemoryChunkIndex {
  #durable: [name: string | undefined, batch: Batch | Uint8Array][] = [];
  #unsynced: { batch: Batch; durable: boolean }[] = [];

  override write(batch: Batch, durable: boolean): Promise<void> {
    const copy = { ...batch, ids: batch.ids.slice(), places: batch.places.slice() };
    this.#unsynced.push({ batch: copy, durable });
    return super.write(batch, durable);
  }

  override setMark(name: string, value: Uint8Array): Promise<void> {
    for (const { batch } of this.#unsynced.splice(0)) this.#durable.push([undefined, batch]);
    this.#durable.push([name, value.slice()]);
    return super.setMark(name, value);
  }

  async crash(random: () => number): Promise<CrashIndex> {
    const next = new CrashIndex();
    for (const [name, value] of this.#durable) {
      if (name === undefined) await next.write(value as Batch, true);
      else await next.setMark(name, value as Uint8Array);
    }
    for (const { batch, durable } of this.#unsynced) {
      if (durable || random() < 0.5) await next.write(batch, true);
    }
    next.#durable.push(
      ...next.#unsynced.splice(0).map(({ batch }): [undefined, Batch] => [undefined, batch]),
    );
    return next;
  }
}

/** A file system whose files can be read in the turn of the call, unless that is said to be slow. */
function readingNow(fs: FileSystem, isSlow: () => boolean): FileSystem {
  const open: FileSystem['open'] = async (path, mode) => {
    const file = await fs.open(path, mode);
    file.readNow = (target, position) => (isSlow() ? undefined : file.readSync(target, position));
    return file;
  };
  return new Proxy(fs, {
    get: (_, name: keyof FileSystem) => (name === 'open' ? open : fs[name].bind(fs)),
  });
}

/** A store on a simulated disk that can be crashed, filled and damaged. */
export class World {
  fs = new CrashFileSystem();
  index: CrashIndex = new CrashIndex();
  readonly limits: Partial<ChunkStoreLimits>;
  readonly chunkBytes: number;
  /** With which ids are keyed; undefined when they are not. */
  hashKey: Uint8Array | undefined;
  /** Whether a read in the turn of the call would be slow now; where it is absent, there are none. */
  isSlow: (() => boolean) | undefined;

  constructor(limits: Partial<ChunkStoreLimits> = {}, chunkBytes = CHUNK, hashKey = HASH_KEY_DEFAULT) {
    this.limits = { workers: 0, ...limits };
    this.chunkBytes = chunkBytes;
    this.hashKey = hashKey;
  }

  /** What its segments say of the store. */
  get identity(): StoreIdentity {
    const { chunkBytes, hashKey } = this;
    return { storeId: STORE_ID, chunkBytes, hashKey };
  }

  storage(): SegmentStorage {
    const fs = this.isSlow === undefined ? this.fs : readingNow(this.fs, () => this.isSlow!());
    return new DirectorySegmentStorage(fs, DIRECTORY);
  }

  open(index: ChunkIndex = this.index): Promise<ChunkStore> {
    const { limits } = this;
    return openChunkStore({ storage: this.storage(), index, ...this.identity, limits });
  }

  /** The machine loses power and boots again. The old store is dead. */
  async crash(random: () => number): Promise<void> {
    this.fs = this.fs.crash(random);
    this.index = await this.index.crash(random);
  }

  /** The process is killed: what was written stays, synced or not. */
  async kill(): Promise<void> {
    await this.crash(() => 0.3); // a luck that keeps every write whole
  }

  async files(): Promise<string[]> {
    return (await this.fs.list(DIRECTORY)).map((name) => `${DIRECTORY}/${name}`);
  }

  async diskBytes(): Promise<number> {
    const files = await this.files();
    return files.reduce((sum, file) => sum + this.fs.bytesOf(file).byteLength, 0);
  }
}

export function isCode(code: Parameters<typeof isPandoError>[1]): (error: unknown) => boolean {
  return (error) => isPandoError(error, code);
}
