/** Verification of a whole store: its segments first, then which disks the damage is in. */
import type { VerifyReport } from '@pando/api';
import type { Catalog } from '@pando/catalog';
import { isPandoError } from '@pando/common';
import {
  segmentFileName,
  type ChunkStore,
  type VerifyOptions,
  type VerifyPosition,
} from '@pando/chunk-store';
import { listOwnedDisks, type OwnedDisk } from '@pando/fleet';
import { findDamage, type DamageReport, type DamageWork } from '@pando/gc';

export interface VerifyWork {
  /** Structure only: headers, footers, and that everything that disks refer to is there. */
  readonly quick?: boolean;
  readonly signal?: AbortSignal;
  /** Bytes of segments in phase `segments`; nodes, and no end that is known, in phase `disks`. */
  readonly onProgress?: (progress: { phase: string; done: number; all?: number }) => void;
  readonly pace?: VerifyOptions['pace'];
}

/** Where a verification begins, how it tells how far it is, and what is lost: see VerifyOptions and DamageWork. */
export type VerifyWay = Pick<VerifyOptions, 'from' | 'onPosition'> & Pick<DamageWork, 'onLost'>;

export interface Verified {
  readonly report: VerifyReport;
  readonly position: VerifyPosition;
}

const NO_DISKS: DamageReport<OwnedDisk> = {
  disks: [],
  moreDisks: 0,
  checkedDisks: 0,
  nodes: 0,
  missingChunks: 0,
  isComplete: false,
};

/**
 * Verifies segments, footers, index and catalog, and walks the trees of all disks as the catalog has them; what is in overlays and
 * the log has not become part of them yet. No collection may run meanwhile.
 * @throws `cancelled`, `store-failed`
 */
export async function verifyAll(
  { catalog, store }: { readonly catalog: Catalog; readonly store: ChunkStore },
  work: VerifyWork = {},
  { onLost, ...way }: VerifyWay = {},
): Promise<Verified> {
  const { quick = false, signal, onProgress, pace } = work;
  const given = signal === undefined ? {} : { signal };
  const segments = await store.verify({
    quick,
    ...given,
    ...way,
    ...(pace === undefined ? {} : { pace }),
    onProgress: (done, all) => onProgress?.({ phase: 'segments', done, all }),
  });
  const catalogDamage = (await catalog.verify?.()) ?? [];
  const found = await findDamage(store, listOwnedDisks(catalog), segments.finder, {
    ...given,
    ...(onLost === undefined ? {} : { onLost }),
    onProgress: ({ done }) => onProgress?.({ phase: 'disks', done }),
  }).catch((error: unknown) => {
    // Which disks there are cannot be told then; the catalog's own damage is named.
    if (catalogDamage.length > 0 && isPandoError(error, 'catalog-corrupt')) return NO_DISKS;
    throw error;
  });
  const report = {
    quick,
    chunks: segments.chunks,
    bytes: segments.bytes,
    ...(way.from === undefined ? {} : { resumedBytes: way.from.bytes }),
    nodes: found.nodes,
    checkedDisks: found.checkedDisks,
    missingChunks: found.missingChunks,
    damaged: [
      ...catalogDamage.map(({ file, ...place }) => ({ file: `catalog/${file}`, ...place })),
      ...segments.indexFiles.map(({ file, ...place }) => ({ file: `index/${file}`, ...place })),
      ...segments.damaged.map(({ segment, offset, problem }) => ({
        segment,
        file: `segments/${segmentFileName(segment)}`,
        offset,
        problem,
      })),
    ],
    moreDamaged: segments.moreDamaged,
    disks: found.disks.map(({ disk: { kind, id, name, disk, root }, bytes, ranges, moreRanges }) => ({
      ...{ kind, id, name, disk },
      sizeBytes: root.size,
      damagedBytes: bytes,
      ranges,
      moreRanges,
    })),
    moreDisks: found.moreDisks,
    isComplete: found.isComplete,
  };
  return { report, position: segments.position };
}
