/**
 * Copy-on-path updates: a batch of changes rebuilds each touched node once.
 *
 * Down: for each level the touched nodes are listed (number, old id) and read, because a changed
 * chunk lies under them, or because a hole range begins or ends inside them. What lies wholly inside
 * a hole range is never read, so a range costs two paths, however long. Up: level by level,
 * the new bytes are put together and written in batches; a node whose bytes are what they were keeps its
 * id, so that nothing above it changes on its account.
 *
 * Memory: nodes above leaves are held from the way down to the way up, leaves one batch at a time; at most one
 * path of nodes for each change and each end of a hole range.
 */
import { HOLE_ID, ID_BYTES, PandoError, isHole } from '@pando/common';
import { readNodes } from './fetch.ts';
import { chunkCount, copyId, emptyRoot, isZero, spanOf } from './shape.ts';
import {
  FANOUT,
  NODE_BYTES,
  type Changes,
  type ChunkReader,
  type ChunkWriter,
  type Root,
  type TreeNode,
} from './types.ts';

/** Most nodes in one call of writeNodes. */
export const NODE_BATCH_MAX = 256;

/** The touched nodes of one level, ascending by number. */
interface Touched {
  readonly level: number;
  /** Number of each node within its level: its first chunk divided by its span. */
  readonly numbers: number[];
  /** numbers.length × 32 bytes: ids before the update; a hole also where a hole range covers the node. */
  readonly oldIds: Uint8Array;
  /** Old nodes, undefined for holes; for leaves empty until their batch. */
  readonly nodes: (TreeNode | undefined)[];
}

/**
 * The root after `changes`; `root` itself stays what it was. Equal content gives equal roots. Chunks
 * that the changes name must have been written before. A hole range may reach past the disk's end.
 * @throws `range-invalid` for a changed chunk outside the disk, and the errors of reader and writer
 */
export async function updateTree(
  reader: ChunkReader,
  writer: ChunkWriter,
  root: Root,
  changes: Changes,
): Promise<Root> {
  const chunks = chunkCount(root.size, reader.chunkBytes);
  if (changes.count > 0 && !(changes.indexes[0]! >= 0 && changes.indexes[changes.count - 1]! < chunks)) {
    throw new PandoError('range-invalid', `a changed chunk is outside a disk of ${chunks} chunks`);
  }
  const id = await rebuild(reader, writer, root.id, root.height, chunks, changes);
  return isHole(id) ? emptyRoot(root.size, reader.chunkBytes) : { id, height: root.height, size: root.size };
}

/** The id of the top node after the changes. Nothing but holes lies from `chunks` on, before or after. */
export async function rebuild(
  reader: ChunkReader,
  writer: ChunkWriter,
  id: Uint8Array,
  height: number,
  chunks: number,
  changes: Changes,
): Promise<Uint8Array> {
  const holes = clipHoles(changes.holes, chunks, spanOf(height));
  if (changes.count === 0 && (holes.length === 0 || isHole(id))) return id;
  if (changes.count === 0 && holes[0] === 0 && holes[1] === spanOf(height)) return HOLE_ID;

  const covered = holes[0] === 0 && holes[1] === spanOf(height);
  let touched: Touched = {
    level: height,
    numbers: [0],
    oldIds: covered ? HOLE_ID : copyId(id, 0),
    nodes: [],
  };
  const levels: Touched[] = [touched];
  while (touched.level > 1) {
    await load(reader, touched);
    touched = childrenTouched(touched, changes, holes);
    levels.push(touched);
  }
  let below: Touched | undefined;
  let ids: Uint8Array = HOLE_ID;
  for (let level = levels.pop(); level !== undefined; level = levels.pop()) {
    ids = await rebuildLevel(reader, writer, level, changes, holes, below, ids);
    below = level;
  }
  return ids;
}

/** Hole ranges inside the tree; one that reaches the disk's end covers everything after it too, which is all hole. */
function clipHoles(holes: Float64Array, chunks: number, span: number): number[] {
  const clipped: number[] = [];
  for (let i = 0; i + 1 < holes.length; i += 2) {
    const start = holes[i]!;
    const end = holes[i + 1]! >= chunks ? span : holes[i + 1]!;
    if (start < end) clipped.push(start, end);
  }
  return clipped;
}

/** Reads the old nodes of a level that are not holes. */
async function load(reader: ChunkReader, touched: Touched): Promise<void> {
  touched.nodes.push(...(await readBatch(reader, touched.oldIds, 0, touched.numbers.length)));
}

async function readBatch(
  reader: ChunkReader,
  ids: Uint8Array,
  first: number,
  count: number,
): Promise<(TreeNode | undefined)[]> {
  const wanted = new Uint8Array(count * ID_BYTES);
  let reads = 0;
  for (let i = first; i < first + count; i++) {
    if (isHole(ids, i * ID_BYTES)) continue;
    wanted.set(ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES), reads++ * ID_BYTES);
  }
  const found = await readNodes(reader, wanted, 0, reads);
  const nodes: (TreeNode | undefined)[] = [];
  for (let i = first, next = 0; i < first + count; i++) {
    nodes.push(isHole(ids, i * ID_BYTES) ? undefined : found[next++]);
  }
  return nodes;
}

/** The touched nodes one level below. */
function childrenTouched(parents: Touched, changes: Changes, holes: readonly number[]): Touched {
  const level = parents.level - 1;
  const span = spanOf(level);
  const numbers: number[] = [];
  let ids = new Uint8Array(64 * ID_BYTES);
  let change = 0;
  let hole = 0;
  for (let p = 0; p < parents.numbers.length; p++) {
    const start = parents.numbers[p]! * span * FANOUT;
    const end = start + span * FANOUT;
    const node = parents.nodes[p];
    while (hole < holes.length && holes[hole + 1]! <= start) hole += 2;
    for (let child = -1; ;) {
      // The next touched child after `child`: where the next change is, or where a hole range cuts a child in two.
      const from = start + (child + 1) * span;
      while (change < changes.count && changes.indexes[change]! < from) change++;
      let next = change < changes.count ? changes.indexes[change]! : Infinity;
      while (hole < holes.length && holes[hole + 1]! <= from) hole += 2;
      for (let h = hole; h < holes.length && holes[h]! < Math.min(next, end); h += 2) {
        if (holes[h]! > from && holes[h]! % span !== 0) next = Math.min(next, holes[h]!);
        if (holes[h + 1]! % span !== 0) next = Math.min(next, holes[h + 1]!);
      }
      if (next >= end) break;
      child = Math.floor((next - start) / span);
      const childStart = start + child * span;
      const changed = change < changes.count && changes.indexes[change]! < childStart + span;
      const old = node !== undefined && !covers(holes, hole, childStart, childStart + span);
      const oldHole = !old || isHole(node.bytes, child * ID_BYTES);
      if (oldHole && !changed) continue; // a hole range ends inside a hole: nothing to do there
      if ((numbers.length + 1) * ID_BYTES > ids.length) ids = grown(ids);
      if (!oldHole)
        ids.set(node.bytes.subarray(child * ID_BYTES, (child + 1) * ID_BYTES), numbers.length * ID_BYTES);
      numbers.push(parents.numbers[p]! * FANOUT + child);
    }
  }
  return { level, numbers, oldIds: ids.subarray(0, numbers.length * ID_BYTES), nodes: [] };
}

/** Whether one of the ranges from `hole` on covers all of `start … end − 1`. */
function covers(holes: readonly number[], hole: number, start: number, end: number): boolean {
  for (let h = hole; h < holes.length && holes[h]! <= start; h += 2) {
    if (holes[h + 1]! >= end) return true;
  }
  return false;
}

function grown(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(bytes.length * 2);
  larger.set(bytes);
  return larger;
}

/** Where the walk over changes, hole ranges and touched children stands while one level is rebuilt. */
interface Progress {
  change: number;
  hole: number;
  child: number;
}

/** Puts the new nodes of a level together and writes those that changed. Resolves to the new ids of all touched ones. */
async function rebuildLevel(
  reader: ChunkReader,
  writer: ChunkWriter,
  level: Touched,
  changes: Changes,
  holes: readonly number[],
  below: Touched | undefined,
  belowIds: Uint8Array,
): Promise<Uint8Array> {
  const count = level.numbers.length;
  const newIds = level.oldIds.slice();
  const progress: Progress = { change: 0, hole: 0, child: 0 };
  // One for all batches: a writer has read it when it answers.
  const bytes = new Uint8Array(Math.min(NODE_BATCH_MAX, count) * NODE_BYTES);
  for (let first = 0; first < count; first += NODE_BATCH_MAX) {
    const size = Math.min(NODE_BATCH_MAX, count - first);
    const olds = level.level === 1 ? await readBatch(reader, level.oldIds, first, size) : undefined;
    const written: number[] = [];
    for (let i = first; i < first + size; i++) {
      const old = olds === undefined ? level.nodes[i] : olds[i - first];
      const at = written.length * NODE_BYTES;
      const node = bytes.subarray(at, at + NODE_BYTES);
      if (old === undefined) node.fill(0);
      else node.set(old.bytes);
      patch(node, level, level.numbers[i]!, changes, holes, below, belowIds, progress);
      if (isZero(node, 0, NODE_BYTES)) newIds.fill(0, i * ID_BYTES, (i + 1) * ID_BYTES);
      else if (old === undefined || Buffer.compare(node, old.bytes) !== 0) written.push(i);
    }
    if (written.length === 0) continue;
    const ids = await writer.writeNodes(
      bytes.subarray(0, written.length * NODE_BYTES),
      written.length,
      level.level,
    );
    for (let w = 0; w < written.length; w++) {
      newIds.set(ids.subarray(w * ID_BYTES, (w + 1) * ID_BYTES), written[w]! * ID_BYTES);
    }
  }
  return newIds;
}

/** Brings the children of one node up to date: first holes, then what changed. */
function patch(
  node: Uint8Array,
  touched: Touched,
  number: number,
  changes: Changes,
  holes: readonly number[],
  below: Touched | undefined,
  belowIds: Uint8Array,
  progress: Progress,
): void {
  const span = spanOf(touched.level - 1);
  const start = number * span * FANOUT;
  const end = start + span * FANOUT;
  while (progress.hole < holes.length && holes[progress.hole + 1]! <= start) progress.hole += 2;
  for (let h = progress.hole; h < holes.length && holes[h]! < end; h += 2) {
    const from = Math.ceil(Math.max(0, holes[h]! - start) / span);
    const to = Math.floor(Math.min(end - start, holes[h + 1]! - start) / span);
    if (from < to) node.fill(0, from * ID_BYTES, to * ID_BYTES);
  }
  if (below === undefined) {
    while (progress.change < changes.count && changes.indexes[progress.change]! < start) progress.change++;
    for (; progress.change < changes.count && changes.indexes[progress.change]! < end; progress.change++) {
      const at = progress.change * ID_BYTES;
      node.set(
        changes.ids.subarray(at, at + ID_BYTES),
        (changes.indexes[progress.change]! - start) * ID_BYTES,
      );
    }
    return;
  }
  for (; progress.child < below.numbers.length; progress.child++) {
    const child = below.numbers[progress.child]! - number * FANOUT;
    if (child >= FANOUT) break;
    node.set(belowIds.subarray(progress.child * ID_BYTES, (progress.child + 1) * ID_BYTES), child * ID_BYTES);
  }
}
