/** Visiting the nodes of a tree, several reads at a time, in no particular order between subtrees. */
import { ID_BYTES, isHole } from '@pando/common';
import { NODE_READS_MAX } from './fetch.ts';
import { spanOf } from './shape.ts';
import { FANOUT, type ChunkReader, type Root, type TreeNode } from './types.ts';

export interface TreeVisitor {
  /** Asked before a node is read; false passes its subtree by. Absent: every node is read. */
  enter?(ids: Uint8Array, offset: number, level: number, firstChunk: number): boolean;
  /** Gets each node that was read; false passes its children by. */
  visit(ids: Uint8Array, offset: number, level: number, node: TreeNode, firstChunk: number): boolean;
}

/**
 * Walks the nodes of a tree from the top; holes are not visited. A node that occurs several times is visited
 * each time, unless the visitor says otherwise. Depth first, so at most NODE_READS_MAX paths of nodes are held.
 * @throws the errors of reader and visitor, when no read is under way any more
 */
export async function walkTree(reader: ChunkReader, root: Root, visitor: TreeVisitor): Promise<void> {
  if (isHole(root.id)) return;
  /** Subtrees to visit, the next on top: node that holds the id, offset of the id in it, level, first chunk. */
  const todo: { ids: Uint8Array; offset: number; level: number; firstChunk: number }[] = [];
  todo.push({ ids: root.id, offset: 0, level: root.height, firstChunk: 0 });
  const reading = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;

  const visitOne = async (item: (typeof todo)[number]): Promise<void> => {
    const { ids, offset, level, firstChunk } = item;
    const node = reader.peekNode(ids, offset) ?? (await reader.readNode(ids, offset));
    if (!visitor.visit(ids, offset, level, node, firstChunk) || level === 1) return;
    const span = spanOf(level - 1);
    for (let child = FANOUT - 1; child >= 0; child--) {
      if (isHole(node.bytes, child * ID_BYTES)) continue;
      todo.push({
        ids: node.bytes,
        offset: child * ID_BYTES,
        level: level - 1,
        firstChunk: firstChunk + child * span,
      });
    }
  };
  for (;;) {
    while (failure === undefined && todo.length > 0 && reading.size < NODE_READS_MAX) {
      const item = todo.pop()!;
      try {
        if (visitor.enter?.(item.ids, item.offset, item.level, item.firstChunk) === false) continue;
      } catch (error) {
        failure = { error };
        break;
      }
      const visiting: Promise<void> = visitOne(item).then(
        () => {
          reading.delete(visiting);
        },
        (error: unknown) => {
          failure ??= { error };
          reading.delete(visiting);
        },
      );
      reading.add(visiting);
    }
    if (reading.size === 0) break;
    await Promise.race(reading);
  }
  if (failure !== undefined) throw failure.error;
}
