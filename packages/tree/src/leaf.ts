/** Finding the leaf over a chunk, to compare ids without reading data. */
import { ID_BYTES, isHole } from '@pando/common';
import { childIndex, chunkCount } from './shape.ts';
import type { ChunkReader, Root, TreeNode } from './types.ts';

/**
 * The leaf that lists the chunk, at `chunk % FANOUT`; undefined where the chunk lies in a hole or past the end of the disk.
 * Costs the height.
 * @throws the errors of the reader
 */
export async function findLeaf(
  reader: ChunkReader,
  root: Root,
  chunk: number,
): Promise<TreeNode | undefined> {
  if (isHole(root.id) || chunk >= chunkCount(root.size, reader.chunkBytes)) return undefined;
  let ids = root.id;
  let at = 0;
  for (let level = root.height; ; level--) {
    const node = reader.peekNode(ids, at) ?? (await reader.readNode(ids, at));
    if (level === 1) return node;
    ids = node.bytes;
    at = childIndex(chunk, level) * ID_BYTES;
    if (isHole(ids, at)) return undefined;
  }
}
