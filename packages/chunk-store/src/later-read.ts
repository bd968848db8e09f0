/** A read of chunks of one leaf of which some runs are on their way. */
import type { StoreNode } from './node-cache.ts';
import type { CachedRun } from './run-cache.ts';
import type { RunTaker } from './run-loads.ts';

/** What it asks of the store. */
export interface LaterSource {
  /** Whether a run that was loaded holds a leaf's child undamaged; then it stands in `target`. */
  copyLoaded(
    run: CachedRun,
    key: number,
    node: StoreNode,
    child: number,
    target: Uint8Array,
    at: number,
  ): boolean;
  /** Whether a read that failed so may be tried again at another place: damage, or a segment that is gone. */
  mayBeElsewhere(key: number, error: unknown): boolean;
  /** Reads a child that is not where it seemed to be. */
  readMoved(node: StoreNode, child: number, target: Uint8Array, at: number): Promise<void>;
}

export class LaterRead implements RunTaker {
  waitsFor = 0;
  readonly done: Promise<void>;
  readonly #source: LaterSource;
  readonly #node: StoreNode;
  readonly #target: Uint8Array;
  /** Target offset of the leaf's first child. */
  readonly #shift: number;
  readonly #chunkBytes: number;
  /** Children that were not where they seemed to be. */
  #missed: number[] | undefined;
  #failure: { readonly error: unknown } | undefined;
  #resolve!: (value?: Promise<void>) => void;

  constructor(source: LaterSource, node: StoreNode, target: Uint8Array, shift: number, chunkBytes: number) {
    this.#source = source;
    this.#node = node;
    this.#target = target;
    this.#shift = shift;
    this.#chunkBytes = chunkBytes;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get ids(): Uint8Array {
    return this.#node.bytes;
  }

  took(run: CachedRun | undefined, key: number, first: number, end: number, error: unknown): void {
    try {
      if (run === undefined && !this.#source.mayBeElsewhere(key, error)) throw error;
      for (let child = first; child < end; child++) {
        const at = this.#shift + child * this.#chunkBytes;
        if (run === undefined || !this.#source.copyLoaded(run, key, this.#node, child, this.#target, at))
          this.miss(child);
      }
    } catch (failure) {
      this.#failure ??= { error: failure };
    }
    this.release();
  }

  /** A child has to be read by itself, when all else is done. */
  miss(child: number): void {
    (this.#missed ??= []).push(child);
  }

  /** Something that it waited for has ended, and failed where there is a failure. */
  release(failure?: { readonly error: unknown }): void {
    this.#failure ??= failure;
    if (--this.waitsFor > 0) return;
    if (this.#failure === undefined && this.#missed === undefined) this.#resolve();
    else this.#resolve(this.#finish());
  }

  async #finish(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    for (const child of this.#missed!) {
      await this.#source.readMoved(this.#node, child, this.#target, this.#shift + child * this.#chunkBytes);
    }
  }
}
