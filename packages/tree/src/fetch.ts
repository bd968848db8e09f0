/** Reading many nodes at once, with a bound. */
import { ID_BYTES } from '@pando/common';
import type { ChunkReader, TreeNode } from './types.ts';

/** Most nodes that one update, diff or walk reads at the same time. */
export const NODE_READS_MAX = 32;

/**
 * Reads `count` nodes whose ids lie one after another in `ids` from `offset`; none is a hole. When it
 * rejects, no read is under way any more.
 */
export async function readNodes(
  reader: ChunkReader,
  ids: Uint8Array,
  offset: number,
  count: number,
): Promise<TreeNode[]> {
  const nodes: TreeNode[] = new Array<TreeNode>(count);
  let next = 0;
  let failure: { readonly error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    while (next < count && failure === undefined) {
      const at = next++;
      try {
        const id = offset + at * ID_BYTES;
        nodes[at] = reader.peekNode(ids, id) ?? (await reader.readNode(ids, id));
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(NODE_READS_MAX, count) }, lane));
  if (failure !== undefined) throw (failure as { error: unknown }).error;
  return nodes;
}
