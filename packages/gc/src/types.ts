/**
 * Garbage collection and accounts: one walk from every root.
 *
 * Mark: from the roots of every disk record in the catalog, and from what sessions in flight have
 * pinned, each node once; liveness is one bit for each (segment, slot). Sweep by segment: all dead →
 * drop; mostly dead → compact; else leave. Runs while everything else goes on.
 */
import type { HeldSets } from './held-sets.ts';

export interface GcOptions {
  /**
   * Compact a segment when something in it is dead and at most this share of its bytes is live; default 0.75. 1 frees
   * all that is dead, and may rewrite the whole store for it.
   */
  readonly compactBelow?: number;
  /**
   * Awaited once all that is alive is known, before anything is removed: what has to be known elsewhere by then. When it rejects, so does
   * the collection, and nothing was removed.
   */
  readonly beforeSweep?: () => Promise<void>;
  readonly signal?: AbortSignal;
  /** Called now and then: what it is doing, and how far. */
  readonly onProgress?: (progress: { phase: 'mark' | 'sweep'; done: number; all: number }) => void;
}

export interface GcReport {
  readonly roots: number;
  readonly liveChunks: number;
  readonly liveBytes: number;
  readonly deadChunks: number;
  readonly droppedSegments: number;
  readonly compactedSegments: number;
  /** Segments that were left as they are because something in them is damaged. */
  readonly damagedSegments: number;
  readonly freedBytes: number;
}

/** What accounts take besides the owners; `all` is 0 where the end is not known. */
export interface AccountWork {
  /** Most bytes that sets of several owners may take; default SET_BYTES_MAX. */
  readonly setBytesMax?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: {
    phase: 'walk' | 'lineages' | 'segments';
    done: number;
    all: number;
  }) => void;
}

/**
 * One owner (a VM or a backup) for the accounts: a key, its lineage, and its disks' roots. Owners that share much are best listed
 * side by side: see owner-sets.ts.
 */
export interface AccountOwner {
  readonly key: string;
  readonly lineage: string;
  readonly roots: readonly { readonly id: Uint8Array; readonly height: number; readonly size: number }[];
  /** Whether it counts in `Accounts.subset`. */
  readonly isInSubset?: boolean;
}

/** Stored bytes are bytes in segment files, run and segment overheads shared out, so that sums are exact. */
export interface OwnerAccount {
  readonly key: string;
  /** Bytes of its disks. */
  readonly logicalBytes: number;
  /** Bytes of its disks that are not holes. */
  readonly allocatedBytes: number;
  /** Stored bytes, nodes included, that deleting this one alone would free. */
  readonly exclusiveBytes: number;
}

/** From bytes of disks to stored bytes, of all owners or of some. */
export interface AccountTotals {
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  /** Allocated bytes with a chunk at the same place in disks of one lineage counted once. */
  readonly lineageBytes: number;
  /** Bytes of distinct data chunks that are reachable, before compression. */
  readonly uniqueBytes: number;
  /** Stored bytes of reachable data chunks. */
  readonly dataStoredBytes: number;
}

export interface Accounts extends AccountTotals {
  readonly owners: readonly OwnerAccount[];
  /** Of the owners in the subset, as if there were no others. */
  readonly subset: AccountTotals;
  /** Who holds what with whom; all of it is data and nodes together. */
  readonly held: HeldSets;
  /** Stored bytes of reachable nodes. */
  readonly nodeStoredBytes: number;
  /** Stored bytes that only sessions in flight hold. */
  readonly inFlightBytes: number;
  /** Stored bytes that nothing reaches: what gc can free. */
  readonly garbageBytes: number;
  readonly liveChunks: number;
}

/** What a walk for damage takes. */
export interface DamageWork {
  /** Called with each chunk (level 0) and node that is lost and that a disk refers to; it may come more than once. */
  readonly onLost?: (ids: Uint8Array, offset: number, level: number) => void;
  readonly signal?: AbortSignal;
  /** Called now and then with the nodes visited so far. */
  readonly onProgress?: (progress: { done: number }) => void;
}

/** What is damaged of one disk, `disk` being what the caller listed it as. */
export interface DiskDamage<D> {
  readonly disk: D;
  /** Bytes of the disk that are lost. */
  readonly bytes: number;
  /** In order, none touching the next; a damaged node loses all that lies below it, holes included. */
  readonly ranges: readonly { readonly offset: number; readonly bytes: number }[];
  /** Ranges that are not named. */
  readonly moreRanges: number;
}

export interface DamageReport<D> {
  readonly disks: readonly DiskDamage<D>[];
  /** Damaged disks that are not named. */
  readonly moreDisks: number;
  readonly checkedDisks: number;
  /** Nodes that were visited: each once, however many disks share it. */
  readonly nodes: number;
  /** References to chunks that are in no segment. */
  readonly missingChunks: number;
  /** False when there was so much damage that the walk ended before it had seen everything. */
  readonly isComplete: boolean;
}
