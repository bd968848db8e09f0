/**
 * What the tree needs from the world, and what it is made of. The tree is pure: no clock, no file,
 * no store. It knows a reader and a writer of chunks and nothing else.
 *
 * A node is 4096 bytes: 128 ids of 32 bytes. A node of level 1 (a leaf) lists data chunks, a node of
 * level n lists nodes of level n − 1. A child that is all zeros is a hole: an id of 32 zero bytes.
 * A node whose children are all holes does not exist; its parent (or the root) holds a hole instead.
 *
 * Canonical form, so that two equal disks have two equal roots: `height` is always
 * `heightFor(size, chunkBytes)`, zero chunks are always holes, the last chunk of a disk whose size is
 * not a multiple of `chunkBytes` is padded with zeros, and nothing but holes lies past the size.
 */

/** Children of one node. */
export const FANOUT = 128;
/** Bytes of one node: 128 ids of 32 bytes. */
export const NODE_BYTES = 4096;

/** The whole state of a disk. Immutable; `id` must not be written to. */
export interface Root {
  /** Id of the top node; 32 zero bytes when the whole disk is a hole. */
  readonly id: Uint8Array;
  /** Levels of nodes above the data, 1 or more. */
  readonly height: number;
  /** Bytes of the disk. */
  readonly size: number;
}

/**
 * A node in memory. The tree reads `bytes`; whoever made it may hang more on the object (the chunk
 * store keeps the resolved places of the children there). Immutable and shared between disks.
 */
export interface TreeNode {
  /** NODE_BYTES bytes: the ids of the children, holes as zeros. */
  readonly bytes: Uint8Array;
}

/** Reads chunks. Everything handed out has been verified against its id. */
export interface ChunkReader {
  /** Bytes of one data chunk of this store. */
  readonly chunkBytes: number;

  /** The node whose id stands at `ids[offset … offset + 31]`, when it is in memory. Never a hole. */
  peekNode(ids: Uint8Array, offset: number): TreeNode | undefined;

  /**
   * The same node from wherever it is. The id is read before the first await.
   * @throws PandoError `chunk-missing`, `chunk-corrupt` (kind data), or `store-failed`
   */
  readNode(ids: Uint8Array, offset: number): Promise<TreeNode>;

  /**
   * Copies the data chunks `first … first + count − 1` of a leaf one after another to
   * `target[targetOffset…]`; holes become zeros. Returns undefined when all was done from memory, which
   * is the hot path: no promise then.
   * @throws (or rejects with) the errors of readNode
   */
  readChunks(
    leaf: TreeNode,
    first: number,
    count: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> | undefined;
}

/** Writes chunks; what is there already is not written again. */
export interface ChunkWriter {
  readonly chunkBytes: number;

  /**
   * Stores `count` nodes of `level`, which lie one after another in `nodes` (count × 4096 bytes).
   * Resolves to their ids, count × 32 bytes, owned by the caller; an all-zero node gets the hole id.
   * `nodes` belongs to the writer until then. Their children must have been written before, through this
   * writer, or be part of a tree that stays alive meanwhile.
   * @throws PandoError `store-full`, `store-failed`
   */
  writeNodes(nodes: Uint8Array, count: number, level: number): Promise<Uint8Array>;

  /**
   * Stores `count` data chunks that lie one after another in `chunks` (count × chunkBytes bytes), in
   * disk order. Resolves to their ids as writeNodes does; an all-zero chunk gets the hole id.
   */
  writeChunks(chunks: Uint8Array, count: number): Promise<Uint8Array>;
}

/**
 * Changes to a disk, by chunk. `holes` apply first, chunks on top: a chunk inside a hole range wins.
 */
export interface Changes {
  /** Numbers of the changed chunks, ascending, no number twice. Only the first `count` count. */
  readonly indexes: Float64Array;
  readonly count: number;
  /** count × 32 bytes: the new id of each; the hole id makes a hole. */
  readonly ids: Uint8Array;
  /** Pairs start, end (exclusive) of chunk numbers that become holes, ascending, not touching. */
  readonly holes: Float64Array;
}

/** A run of chunk numbers: `count` chunks from `start`. */
export interface ChunkRange {
  readonly start: number;
  readonly count: number;
}
