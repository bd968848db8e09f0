/**
 * Layers: the chain of states that a disk is read through.
 *
 * A layer is an overlay on top of a parent layer, or, once it has been destaged (or from the start), a
 * root. Layers are shared: a fork is a second disk with the same top layer. When a layer becomes a root,
 * everyone who reads through it does so from then on, and its parent and its memory are let go.
 *
 * Life: active (written to, by one disk) → frozen → resolved (has a root; chunks durable) → committed (the
 * records of all disks that hold it say so; its log records may go). One with baseless chunks that nobody reads any
 * more may go into the tree together with the layers that cover them: it is *absorbed* by the newest of those.
 */
import type { PandoError } from '@pando/common';
import type { Root } from '@pando/tree';
import type { Disk } from './disk.ts';
import { ABSENT, ZERO, type Overlay } from './overlay.ts';

export class Layer {
  /** Number of the overlay; 0 for a layer that never had one. */
  readonly number: number;
  /** Bytes of the disk from this layer on. */
  size: number;
  /** Chunks of the disk from this layer on: nothing below shows through past them. */
  chunks: number;
  parent: Layer | undefined;
  overlay: Overlay | undefined;
  root: Root | undefined;
  frozen: boolean;
  /**
   * Whether records may name it: its `open` record is synced in the log. Layers that only their own disk holds
   * need not be named, the log opens them; named too early, they would be missed after a power cut.
   */
  listed = false;
  /** Position of its open record: the log must be kept from there until it is committed. */
  firstPosition = 0;
  /** When it was opened, by the monotonic clock. */
  openedAt = 0;
  /** Disks in whose records this overlay is, or will be, listed until it is committed. */
  readonly disks = new Set<Disk>();
  /** Whether it is among the engine's `pending`. */
  pending = false;
  /** Whether destage is reading the overlay just now. */
  destaging = false;
  /** Its root is that of a newer layer, which is not what the disk was when this one was the newest. */
  absorbed = false;
  /** Why it could not be destaged, and when that may be tried again. */
  trouble: { readonly error: PandoError; readonly retryAt: number } | undefined;

  private constructor(number: number, size: number, chunkBytes: number, frozen: boolean) {
    this.number = number;
    this.size = size;
    this.chunks = Math.ceil(size / chunkBytes);
    this.frozen = frozen;
  }

  static ofRoot(root: Root, chunkBytes: number): Layer {
    const layer = new Layer(0, root.size, chunkBytes, true);
    layer.root = root;
    return layer;
  }

  static onTopOf(parent: Layer, number: number, size: number, chunkBytes: number, overlay: Overlay): Layer {
    const layer = new Layer(number, size, chunkBytes, false);
    layer.parent = parent;
    layer.overlay = overlay;
    return layer;
  }

  setSize(size: number, chunkBytes: number): void {
    this.size = size;
    this.chunks = Math.ceil(size / chunkBytes);
  }

  /** The destaged state of this layer: from now on it is read from the tree. */
  resolve(root: Root): void {
    this.root = root;
    this.parent = undefined;
    const overlay = this.overlay;
    this.overlay = undefined;
    overlay?.dispose();
  }
}

/**
 * Looks a chunk up from `top` down: its slot in the newest overlay that has one, ZERO, LOST, ABSENT when the
 * root at the bottom has to be read, or something that `isBaseless`. On the path of every read and write: numbers only.
 */
export function findChunk(top: Layer, chunk: number): number {
  let layer = top;
  for (;;) {
    if (chunk >= layer.chunks) return ZERO;
    if (layer.root !== undefined) return ABSENT;
    const slot = layer.overlay!.find(chunk);
    if (slot !== ABSENT) return slot;
    layer = layer.parent!;
  }
}

/** The layer at the bottom of the chain: the one with the root that is read through. */
export function bottomOf(top: Layer): Layer {
  let layer = top;
  while (layer.root === undefined) layer = layer.parent!;
  return layer;
}

/** The layers of the chain that have no root yet, oldest first. */
export function unresolvedOf(top: Layer): Layer[] {
  const layers: Layer[] = [];
  for (let layer = top; layer.root === undefined; layer = layer.parent!) layers.push(layer);
  return layers.reverse();
}
