/** Verification of a whole store: its segments first, then which disks the damage is in. */
import { join } from 'node:path';
import type { VerifyReport } from '@pando/api';
import type { Catalog } from '@pando/catalog';
import { isPandoError, nodeFileSystem } from '@pando/common';
import {
  segmentFileName,
  type ChunkStore,
  type VerifyOptions,
  type VerifyPosition,
} from '@pando/chunk-store';
import { listOwnedDisks, type OwnedDisk } from '@pando/fleet';
import { findDamage, type DamageReport, type DamageWork } from '@pando/gc';
import { verifyLog, type DamagedPlace } from '@pando/write-log';
import type { DataDirectory } from './data-directory.ts';

export interface VerifyWork {
  /** Structure only: headers, footers, and that everything that disks refer to is there. */
  readonly quick?: boolean;
  readonly signal?: AbortSignal;
  /** Bytes of segments in phase `segments`; nodes, and no end that is known, in phase `disks`. */
  readonly onProgress?: (progress: { phase: string; done: number; all?: number }) => void;
  readonly pace?: VerifyOptions['pace'];
}

/** What is verified. */
export interface Verifiable {
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  /** Looks for damage in the write log; without one, nobody does. */
  readonly verifyLog?: () => Promise<readonly DamagedPlace[]>;
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

/** As `Verifiable.verifyLog`, of a data directory, whether it is in use or not. */
export function verifyLogOf({
  log,
  storeId,
}: Pick<DataDirectory, 'log' | 'storeId'>): Promise<readonly DamagedPlace[]> {
  return verifyLog({ fs: nodeFileSystem, directory: log, storeId });
}

/** Damaged places of the log that are named. */
const LOG_PLACES_MAX = 100;

/**
 * Verifies segments, footers, index, catalog and write log, and walks the trees of all disks as the catalog has them; what is in
 * overlays and the log has not become part of them yet. No collection may run meanwhile.
 * @throws `cancelled`, `store-failed`
 */
export async function verifyAll(
  parts: Verifiable,
  work: VerifyWork = {},
  { onLost, ...way }: VerifyWay = {},
): Promise<Verified> {
  const { catalog, store } = parts;
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
  const logDamage = (await parts.verifyLog?.()) ?? [];
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
      ...logDamage
        .slice(0, LOG_PLACES_MAX)
        .map(({ file, ...place }) => ({ file: join('log', file), ...place })),
      ...segments.indexFiles.map(({ file, ...place }) => ({ file: `index/${file}`, ...place })),
      ...segments.damaged.map(({ segment, offset, problem }) => ({
        segment,
        file: `segments/${segmentFileName(segment)}`,
        offset,
        problem,
      })),
    ],
    moreDamaged: segments.moreDamaged + Math.max(0, logDamage.length - LOG_PLACES_MAX),
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
