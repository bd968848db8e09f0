/**
 * Reading byte ranges of a disk.
 *
 * What is in memory is read without a promise: a request inside one leaf makes no object at all, a
 * longer one a single cursor. Leaves that are not in memory are read side by side, at most
 * LEAF_READS_MAX of one request; nodes above leaves (one for each 64 MiB at 4 KiB chunks) one by one.
 */
import { ID_BYTES, PandoError, isHole } from '@pando/common';
import { childIndex, spanOf } from './shape.ts';
import { FANOUT, type ChunkReader, type Root, type TreeNode } from './types.ts';

/** Most leaves of one request that are read at the same time. */
export const LEAF_READS_MAX = 16;

/** Most scratch chunks kept for partial first and last chunks, over all requests. */
const SCRATCH_MAX = 32;
const scratches: Uint8Array[] = [];

/**
 * Fills `target[targetOffset … + length − 1]` with the disk's bytes from `offset`, any alignment.
 * Returns undefined when everything came from memory. (offset, length) pairs of the hole ranges in
 * the request are appended to `holes`, merged and ascending, before it is done; the target is zeros there.
 * When it rejects nothing writes to the target any more.
 * @throws (or rejects with) `range-invalid`, or the errors of the reader
 */
export function readTree(
  reader: ChunkReader,
  root: Root,
  offset: number,
  length: number,
  target: Uint8Array,
  targetOffset: number,
  holes?: number[],
): Promise<void> | undefined {
  if (!(
    offset >= 0 &&
    length >= 0 &&
    offset + length <= root.size &&
    targetOffset + length <= target.length
  )) {
    throw new PandoError(
      'range-invalid',
      `${length} bytes at ${offset} are not inside a disk of ${root.size} bytes`,
    );
  }
  if (length === 0) return undefined;
  if (isHole(root.id)) {
    target.fill(0, targetOffset, targetOffset + length);
    holes?.push(offset, length);
    return undefined;
  }
  const first = Math.floor(offset / reader.chunkBytes);
  const last = Math.floor((offset + length - 1) / reader.chunkBytes);
  if (Math.floor(first / FANOUT) === Math.floor(last / FANOUT)) {
    const leaf = peekLeaf(reader, root, first);
    if (leaf === null) {
      target.fill(0, targetOffset, targetOffset + length);
      holes?.push(offset, length);
      return undefined;
    }
    if (leaf !== undefined) {
      if (holes !== undefined)
        leafHoles(leaf, reader.chunkBytes, offset, offset + length, holes, holes.length);
      return readLeaf(reader, leaf, offset, length, target, targetOffset);
    }
  }
  return new Cursor(reader, root, offset, length, target, targetOffset, holes).start();
}

/** The leaf over a chunk when the way to it is in memory; null when it is a hole, undefined when not known. */
function peekLeaf(reader: ChunkReader, root: Root, chunk: number): TreeNode | null | undefined {
  let ids = root.id;
  let at = 0;
  for (let level = root.height; ; level--) {
    const node = reader.peekNode(ids, at);
    if (node === undefined || level === 1) return node;
    ids = node.bytes;
    at = childIndex(chunk, level) * ID_BYTES;
    if (isHole(ids, at)) return null;
  }
}

/** Appends the holes between two byte offsets of one leaf. Pairs before `mark` are somebody else's. */
function leafHoles(
  leaf: TreeNode,
  chunkBytes: number,
  from: number,
  to: number,
  holes: number[],
  mark: number,
): void {
  for (let chunk = Math.floor(from / chunkBytes); chunk * chunkBytes < to; chunk++) {
    if (!isHole(leaf.bytes, (chunk % FANOUT) * ID_BYTES)) continue;
    const start = Math.max(from, chunk * chunkBytes);
    pushHole(holes, mark, start, Math.min(to, (chunk + 1) * chunkBytes) - start);
  }
}

function pushHole(holes: number[], mark: number, start: number, length: number): void {
  const last = holes.length - 2;
  if (last >= mark && holes[last]! + holes[last + 1]! === start) holes[last + 1]! += length;
  else holes.push(start, length);
}

/** Reads bytes that lie in one leaf: a partial chunk at either end, whole chunks between. */
function readLeaf(
  reader: ChunkReader,
  leaf: TreeNode,
  offset: number,
  length: number,
  target: Uint8Array,
  targetOffset: number,
): Promise<void> | undefined {
  const chunkBytes = reader.chunkBytes;
  let child = Math.floor(offset / chunkBytes) % FANOUT;
  const skip = offset % chunkBytes;
  let head: Promise<void> | undefined;
  if (skip !== 0 || length < chunkBytes) {
    const part = Math.min(length, chunkBytes - skip);
    head = readPart(reader, leaf, child, skip, part, target, targetOffset);
    child++;
    length -= part;
    targetOffset += part;
  }
  const whole = Math.floor(length / chunkBytes);
  const rest = length - whole * chunkBytes;
  let body: Promise<void> | undefined;
  let tail: Promise<void> | undefined;
  // A throw of a later part must not leave an earlier one writing to the target of a request that has ended.
  try {
    if (whole > 0) body = reader.readChunks(leaf, child, whole, target, targetOffset);
    if (rest > 0)
      tail = readPart(reader, leaf, child + whole, 0, rest, target, targetOffset + whole * chunkBytes);
  } catch (error) {
    if (head === undefined && body === undefined) throw error;
    return afterAll([head, body], { error });
  }
  if (head === undefined && tail === undefined) return body;
  if (body === undefined) {
    if (tail === undefined) return head;
    if (head === undefined) return tail;
  }
  return afterAll([head, body, tail]);
}

/** Reads `length` bytes of one chunk from byte `skip` of it, through a scratch chunk that nobody else has. */
function readPart(
  reader: ChunkReader,
  leaf: TreeNode,
  child: number,
  skip: number,
  length: number,
  target: Uint8Array,
  targetOffset: number,
): Promise<void> | undefined {
  const pooled = scratches.pop();
  const scratch = pooled?.length === reader.chunkBytes ? pooled : new Uint8Array(reader.chunkBytes);
  const reading = reader.readChunks(leaf, child, 1, scratch, 0);
  if (reading !== undefined) return finishPart(reading, scratch, skip, length, target, targetOffset);
  target.set(scratch.subarray(skip, skip + length), targetOffset);
  giveBack(scratch);
  return undefined;
}

async function finishPart(
  reading: Promise<void>,
  scratch: Uint8Array,
  skip: number,
  length: number,
  target: Uint8Array,
  targetOffset: number,
): Promise<void> {
  await reading; // after a failure the scratch is not used again: who knows what still writes to it
  target.set(scratch.subarray(skip, skip + length), targetOffset);
  giveBack(scratch);
}

function giveBack(scratch: Uint8Array): void {
  if (scratches.length < SCRATCH_MAX) scratches.push(scratch);
}

/** Waits for all to end, then rejects with the error that was there before, or the first of theirs. */
async function afterAll(
  all: readonly (Promise<void> | undefined)[],
  failure?: { readonly error: unknown },
): Promise<void> {
  const results = await Promise.allSettled(all.filter((one) => one !== undefined));
  if (failure !== undefined) throw failure.error;
  for (const result of results) {
    if (result.status === 'rejected') throw result.reason;
  }
}

/** A request that spans leaves, waits for nodes, or wants to know its holes. Goes through the leaves in order. */
class Cursor {
  readonly #reader: ChunkReader;
  readonly #root: Root;
  readonly #end: number;
  readonly #target: Uint8Array;
  /** Target offset of disk byte 0. */
  readonly #shift: number;
  readonly #holesOut: number[] | undefined;
  readonly #holes: number[] = [];
  /** path[level] is the node of that level over the byte `#offset`, when known. */
  readonly #path: (TreeNode | undefined)[] = [];
  #offset: number;
  /** Reads of leaves under way; none of them ever rejects, see #track. */
  #reading: Set<Promise<void>> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(
    reader: ChunkReader,
    root: Root,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes: number[] | undefined,
  ) {
    this.#reader = reader;
    this.#root = root;
    this.#offset = offset;
    this.#end = offset + length;
    this.#target = target;
    this.#shift = targetOffset - offset;
    this.#holesOut = holes;
  }

  start(): Promise<void> | undefined {
    let waiting: Promise<void> | undefined;
    try {
      waiting = this.#run();
    } catch (error) {
      if (this.#reading === undefined) throw error;
      this.#failure ??= { error };
    }
    if (waiting !== undefined || this.#reading !== undefined) return this.#finish(waiting);
    this.#reportHoles();
    return undefined;
  }

  async #finish(waiting: Promise<void> | undefined): Promise<void> {
    try {
      while (waiting !== undefined) {
        await waiting;
        if (this.#failure !== undefined) break;
        waiting = this.#run();
      }
    } catch (error) {
      this.#failure ??= { error };
    }
    if (this.#reading !== undefined) await Promise.all(this.#reading);
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#reportHoles();
  }

  /** Goes on until the end (undefined) or until something has to be waited for first. */
  #run(): Promise<void> | undefined {
    while (this.#offset < this.#end) {
      const waiting = this.#step();
      if (waiting !== undefined) return waiting;
    }
    return undefined;
  }

  /** Goes past one hole or one leaf; returns a promise instead when it cannot go on yet. */
  #step(): Promise<void> | undefined {
    const chunkBytes = this.#reader.chunkBytes;
    const chunk = Math.floor(this.#offset / chunkBytes);
    let ids = this.#root.id;
    let at = 0;
    for (let level = this.#root.height; ; level--) {
      const nodeEnd = (Math.floor(chunk / spanOf(level)) + 1) * spanOf(level) * chunkBytes;
      const end = Math.min(nodeEnd, this.#end);
      if (isHole(ids, at)) {
        this.#target.fill(0, this.#offset + this.#shift, end + this.#shift);
        this.#holes.push(this.#offset, end - this.#offset);
        this.#advance(end, level);
        return undefined;
      }
      let node = this.#path[level];
      if (node === undefined) {
        node = this.#reader.peekNode(ids, at);
        if (node === undefined) {
          if (level > 1) return this.#readInner(ids, at, level);
          if (this.#reading?.size === LEAF_READS_MAX) return Promise.race(this.#reading);
          this.#track(this.#readColdLeaf(ids, at, this.#offset, end));
          this.#advance(end, level);
          return undefined;
        }
        this.#path[level] = node;
      }
      if (level === 1) {
        if (this.#reading?.size === LEAF_READS_MAX) return Promise.race(this.#reading);
        const reading = this.#readWarmLeaf(node, this.#offset, end);
        if (reading !== undefined) this.#track(reading);
        this.#advance(end, level);
        return undefined;
      }
      ids = node.bytes;
      at = childIndex(chunk, level) * ID_BYTES;
    }
  }

  /** Moves to `offset`, where a node of `level` ends; nodes of the path that end there too are left behind. */
  #advance(offset: number, level: number): void {
    this.#offset = offset;
    const chunk = offset / this.#reader.chunkBytes;
    for (let left = 1; left <= this.#root.height; left++) {
      if (left > level && chunk % spanOf(left) !== 0) break;
      this.#path[left] = undefined;
    }
  }

  async #readInner(ids: Uint8Array, at: number, level: number): Promise<void> {
    this.#path[level] = await this.#reader.readNode(ids, at);
  }

  async #readColdLeaf(ids: Uint8Array, at: number, from: number, to: number): Promise<void> {
    const leaf = await this.#reader.readNode(ids, at);
    await this.#readWarmLeaf(leaf, from, to);
  }

  #readWarmLeaf(leaf: TreeNode, from: number, to: number): Promise<void> | undefined {
    if (this.#holesOut !== undefined) leafHoles(leaf, this.#reader.chunkBytes, from, to, this.#holes, 0);
    return readLeaf(this.#reader, leaf, from, to - from, this.#target, from + this.#shift);
  }

  #track(reading: Promise<void>): void {
    const tracked: Promise<void> = reading.then(
      () => {
        this.#reading!.delete(tracked);
      },
      (error: unknown) => {
        this.#failure ??= { error };
        this.#reading!.delete(tracked);
      },
    );
    (this.#reading ??= new Set()).add(tracked);
  }

  /** Leaves that were waited for reported their holes late: sorts, merges and hands out. */
  #reportHoles(): void {
    const out = this.#holesOut;
    if (out === undefined) return;
    const found = this.#holes;
    const order = Array.from({ length: found.length / 2 }, (_, i) => i * 2);
    order.sort((a, b) => found[a]! - found[b]!);
    const mark = out.length;
    for (const at of order) {
      pushHole(out, mark, found[at]!, found[at + 1]!);
    }
  }
}
