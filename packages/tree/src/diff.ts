/**
 * Where two disks differ, at a cost proportional to the difference: subtrees with equal ids are passed by.
 *
 * One stack of pairs of subtrees, the next one on top. The nodes of the topmost pairs are read ahead, so that a
 * cold walk does not wait for one read at a time: none at first, twice as many at every step, NODE_READS_MAX pairs
 * at most, so that a walk that is left early has not read much that nobody needed. Memory: the stack holds at most one
 * node's children a level.
 */
import { HOLE_ID, ID_BYTES, idsEqual, isHole, isPandoError } from '@pando/common';
import { NODE_READS_MAX } from './fetch.ts';
import { chunkCount, spanOf } from './shape.ts';
import { FANOUT, NODE_BYTES, type ChunkRange, type ChunkReader, type Root, type TreeNode } from './types.ts';

const HOLE_NODE = new Uint8Array(NODE_BYTES);

/** Two subtrees of one level at one place whose ids differ. */
interface Pair {
  readonly level: number;
  readonly start: number;
  readonly a: Side;
  readonly b: Side;
  read?: Promise<[TreeNode | undefined, TreeNode | undefined | typeof GONE]> | undefined;
}

/** Instead of a node that is not stored any more. */
const GONE = Symbol('a node that is gone');

/** One subtree: an id in a node; `lift` levels lie between it and the pair's level, each with it as first child. */
interface Side {
  readonly ids: Uint8Array;
  readonly offset: number;
  readonly lift: number;
}

const HOLE_SIDE: Side = { ids: HOLE_ID, offset: 0, lift: 0 };

/**
 * Ranges of chunk numbers whose content differs, ascending, merged. Disks of different sizes are compared as
 * if the smaller one went on as a hole.
 * @throws the errors of the reader
 */
export function diffTrees(reader: ChunkReader, a: Root, b: Root): AsyncGenerator<ChunkRange, number> {
  const chunks = Math.max(chunkCount(a.size, reader.chunkBytes), chunkCount(b.size, reader.chunkBytes));
  return differences(reader, a, b, 0, chunks);
}

export interface DiffOptions {
  /**
   * Pairs of nodes that the walk may still read; it counts them off, and ends where it runs out, but not before it
   * has got anywhere. Several walks may share one.
   */
  readonly budget?: { pairs: number };
  /**
   * Called when a node of `b` is not stored any more: all that lies under it counts as different. Without it, that is an
   * error, as it is for a node of `a`.
   */
  readonly onGone?: () => void;
}

/**
 * As diffTrees, for chunks `start … end − 1` only. Returns the chunk up to which all has been compared: `end`, unless
 * the budget ended first. Beginning anywhere costs the height; a walk that is left reads nothing more.
 */
export async function* differences(
  reader: ChunkReader,
  a: Root,
  b: Root,
  start: number,
  end: number,
  options: DiffOptions = {},
): AsyncGenerator<ChunkRange, number> {
  const { budget = { pairs: Infinity }, onGone } = options;
  const height = Math.max(a.height, b.height);
  const stack: Pair[] = [];
  const sideA = { ids: a.id, offset: 0, lift: isHole(a.id) ? 0 : height - a.height };
  const sideB = { ids: b.id, offset: 0, lift: isHole(b.id) ? 0 : height - b.height };
  push(stack, height, 0, sideA, sideB);
  let reached = end;
  let ahead = 1;
  let from = -1;
  let to = -1;
  for (let pair = stack.pop(); pair !== undefined; pair = stack.pop()) {
    if (budget.pairs <= 0 && pair.start > start) {
      reached = pair.start;
      break;
    }
    budget.pairs--;
    startRead(reader, pair, onGone !== undefined);
    for (let i = stack.length - 1; i >= 0 && i > stack.length - ahead; i--)
      startRead(reader, stack[i]!, onGone !== undefined);
    ahead = Math.min(NODE_READS_MAX, ahead * 2);
    const [nodeA, nodeB] = await pair.read!;
    if (nodeB === GONE) {
      onGone!();
      const first = Math.max(start, pair.start);
      if (first !== to) {
        if (to > from) yield { start: from, count: to - from };
        from = first;
      }
      to = Math.min(end, pair.start + spanOf(pair.level));
      continue;
    }
    if (pair.level === 1) {
      const idsA = nodeA?.bytes ?? HOLE_NODE;
      const idsB = nodeB?.bytes ?? HOLE_NODE;
      const last = Math.min(FANOUT, end - pair.start);
      for (let child = Math.max(0, start - pair.start); child < last; child++) {
        if (idsEqual(idsA, child * ID_BYTES, idsB, child * ID_BYTES)) continue;
        const chunk = pair.start + child;
        if (chunk !== to) {
          if (to > from) yield { start: from, count: to - from };
          from = chunk;
        }
        to = chunk + 1;
      }
      continue;
    }
    const span = spanOf(pair.level - 1);
    for (let child = FANOUT - 1; child >= 0; child--) {
      const childStart = pair.start + child * span;
      if (childStart >= end || childStart + span <= start) continue;
      push(stack, pair.level - 1, childStart, childOf(pair.a, nodeA, child), childOf(pair.b, nodeB, child));
    }
  }
  if (to > from) yield { start: from, count: to - from };
  return reached;
}

function push(stack: Pair[], level: number, start: number, a: Side, b: Side): void {
  if (a.lift === b.lift && idsEqual(a.ids, a.offset, b.ids, b.offset)) return;
  stack.push({ level, start, a, b });
}

function childOf(side: Side, node: TreeNode | undefined, child: number): Side {
  if (side.lift > 0) return child === 0 ? { ...side, lift: side.lift - 1 } : HOLE_SIDE;
  return { ids: node?.bytes ?? HOLE_NODE, offset: child * ID_BYTES, lift: 0 };
}

function startRead(reader: ChunkReader, pair: Pair, bMayBeGone: boolean): void {
  if (pair.read !== undefined) return;
  const b = readSide(reader, pair.b);
  pair.read = Promise.all([readSide(reader, pair.a), bMayBeGone ? b.catch(orGone) : b]);
  pair.read.catch(() => undefined); // it rejects again where it is awaited, if the walk gets that far
}

function orGone(error: unknown): typeof GONE {
  if (isPandoError(error, 'chunk-missing')) return GONE;
  throw error;
}

async function readSide(reader: ChunkReader, side: Side): Promise<TreeNode | undefined> {
  if (side.lift > 0 || isHole(side.ids, side.offset)) return undefined;
  return reader.peekNode(side.ids, side.offset) ?? reader.readNode(side.ids, side.offset);
}
