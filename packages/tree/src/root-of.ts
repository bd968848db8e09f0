/**
 * The root that a disk would have, without storing anything: what a source is held against after an import, and a
 * file after an export. The builder does the work over a writer that hashes and forgets, so that there is one
 * definition of what a tree is. Memory: 256 KiB a level and one batch of chunks; a long hole skips whole subtrees.
 */
import { ID_BYTES, PandoError, type DiskPart } from '@pando/common';
import { TreeBuilder } from './builder.ts';
import { isZero } from './shape.ts';
import { NODE_BYTES, type ChunkWriter, type Root } from './types.ts';

/** Chunks that are hashed together. */
const BATCH_CHUNKS = 256;

export interface RootOfOptions {
  readonly chunkBytes: number;
  /** BLAKE3-256 of some bytes. */
  readonly hash: (bytes: Uint8Array) => Uint8Array;
  /**
   * Sees every chunk and node of the tree, children before their parents, holes apart: so many of them one after
   * another, their ids (zeros for a hole), and their level, 0 being data. Buffers hold until it resolves.
   */
  readonly visit?: (
    bytes: Uint8Array,
    count: number,
    ids: Uint8Array,
    level: number,
  ) => Promise<void> | undefined;
  /** Bytes of the disk done so far, after each part. */
  readonly onProgress?: (doneBytes: number) => void;
}

/**
 * The root of the disk whose bytes are the parts, in order; its size is theirs. A part is read before the next pull.
 * @throws what the source throws; `request-invalid` for a hole of no size
 */
export async function rootOf(parts: AsyncIterable<DiskPart>, options: RootOfOptions): Promise<Root> {
  const { chunkBytes } = options;
  const writer = new HashingWriter(chunkBytes, options);
  const builder = new TreeBuilder(writer);
  const batch = new Uint8Array(BATCH_CHUNKS * chunkBytes);
  let filled = 0;
  let size = 0;
  const send = async (): Promise<void> => {
    const count = filled / chunkBytes;
    filled = 0;
    if (count > 0) await builder.append(await writer.writeChunks(batch, count), count);
  };
  const zeros = (most: number): number => {
    const bytes = Math.min(most, batch.byteLength - filled);
    batch.fill(0, filled, filled + bytes);
    filled += bytes;
    return bytes;
  };
  for await (const part of parts) {
    if (part instanceof Uint8Array) {
      for (let done = 0; done < part.byteLength;) {
        const count = Math.min(part.byteLength - done, batch.byteLength - filled);
        batch.set(part.subarray(done, done + count), filled);
        filled += count;
        done += count;
        if (filled === batch.byteLength) await send();
      }
      size += part.byteLength;
    } else {
      let left = part.holeBytes;
      if (!Number.isSafeInteger(left) || left < 0)
        throw new PandoError('request-invalid', `a hole of ${left} bytes`);
      size += left;
      left -= zeros(Math.min(left, (chunkBytes - (filled % chunkBytes)) % chunkBytes));
      if (left >= chunkBytes) {
        await send();
        await builder.appendHole(Math.floor(left / chunkBytes));
        left %= chunkBytes;
      }
      zeros(left);
      if (filled === batch.byteLength) await send();
    }
    options.onProgress?.(size);
  }
  zeros((chunkBytes - (filled % chunkBytes)) % chunkBytes);
  await send();
  return builder.finish(size);
}

/** Says which ids chunks have, and keeps none. */
class HashingWriter implements ChunkWriter {
  readonly chunkBytes: number;
  readonly #hash: RootOfOptions['hash'];
  readonly #visit: RootOfOptions['visit'];

  constructor(chunkBytes: number, { hash, visit }: RootOfOptions) {
    this.chunkBytes = chunkBytes;
    this.#hash = hash;
    this.#visit = visit;
  }

  writeChunks(chunks: Uint8Array, count: number): Promise<Uint8Array> {
    return this.#write(chunks, count, this.chunkBytes, 0);
  }

  writeNodes(nodes: Uint8Array, count: number, level: number): Promise<Uint8Array> {
    return this.#write(nodes, count, NODE_BYTES, level);
  }

  async #write(bytes: Uint8Array, count: number, each: number, level: number): Promise<Uint8Array> {
    const ids = new Uint8Array(count * ID_BYTES);
    for (let i = 0; i < count; i++) {
      if (isZero(bytes, i * each, each)) continue;
      ids.set(this.#hash(bytes.subarray(i * each, (i + 1) * each)), i * ID_BYTES);
    }
    await this.#visit?.(bytes, count, ids, level);
    return ids;
  }
}
