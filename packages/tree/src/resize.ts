/** Growing and shrinking. Both cost a path of nodes, whatever the sizes. */
import { ID_BYTES, isHole } from '@pando/common';
import { readTree } from './read.ts';
import { chunkCount, copyId, emptyRoot, heightFor, spanOf } from './shape.ts';
import { NODE_BYTES, type Changes, type ChunkReader, type ChunkWriter, type Root } from './types.ts';
import { rebuild } from './update.ts';

/**
 * The root of the same disk with another size. New bytes are zeros; what lies past a smaller size is gone, so
 * that growing again reads zeros there. Equal content and size give equal roots.
 * @throws the errors of reader and writer
 */
export function resizeTree(
  reader: ChunkReader,
  writer: ChunkWriter,
  root: Root,
  size: number,
): Promise<Root> {
  return size < root.size ? shrink(reader, writer, root, size) : grow(reader, writer, root, size);
}

async function grow(reader: ChunkReader, writer: ChunkWriter, root: Root, size: number): Promise<Root> {
  const height = heightFor(size, reader.chunkBytes);
  let id = root.id;
  for (let level = root.height + 1; level <= height && !isHole(id); level++) {
    const top = new Uint8Array(NODE_BYTES);
    top.set(id);
    id = await writer.writeNodes(top, 1, level);
  }
  return { id, height, size };
}

async function shrink(reader: ChunkReader, writer: ChunkWriter, root: Root, size: number): Promise<Root> {
  const empty = emptyRoot(size, reader.chunkBytes);
  const chunks = chunkCount(size, reader.chunkBytes);
  let id = root.id;
  if (chunks === 0) return empty;
  for (let level = root.height; level > empty.height && !isHole(id); level--) {
    const top = reader.peekNode(id, 0) ?? (await reader.readNode(id, 0));
    id = copyId(top.bytes, 0);
  }
  if (isHole(id)) return empty;

  const changes = await cutLastChunk(reader, writer, root, size);
  id = await rebuild(reader, writer, id, empty.height, spanOf(empty.height), {
    ...changes,
    holes: Float64Array.of(chunks, spanOf(empty.height)),
  });
  return isHole(id) ? empty : { id, height: empty.height, size };
}

/** Zeros what follows the new end in the last chunk, when that is partial. */
async function cutLastChunk(
  reader: ChunkReader,
  writer: ChunkWriter,
  root: Root,
  size: number,
): Promise<Omit<Changes, 'holes'>> {
  const part = size % reader.chunkBytes;
  const none = { indexes: new Float64Array(0), count: 0, ids: new Uint8Array(0) };
  if (part === 0) return none;
  const chunk = new Uint8Array(reader.chunkBytes);
  const holes: number[] = [];
  await readTree(reader, root, size - part, part, chunk, 0, holes);
  // A chunk that was a hole stays one and needs no writing.
  const ids = holes[1] === part ? new Uint8Array(ID_BYTES) : await writer.writeChunks(chunk, 1);
  return { indexes: Float64Array.of((size - part) / reader.chunkBytes), count: 1, ids };
}
