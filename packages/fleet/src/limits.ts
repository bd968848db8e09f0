/** Bounds of the fleet. */

export interface FleetLimits {
  /** How long a forced operation waits for revoked clients before it closes their disks itself. */
  readonly detachWaitMs: number;
  /** Clients with a disk open at one time, over all VMs and backups. */
  readonly attachmentsMax: number;
  /** Disks without a client of which it is still known whose they are. */
  readonly diskOwnersMax: number;
  /** Contexts of one attachment that are open at one time. */
  readonly attachmentContextsMax: number;
  /** Imports at one time; each holds `importBatchesMax + 1` MiB or so. */
  readonly importsMax: number;
  /** Batches of one import that are hashed, compressed and appended at one time. */
  readonly importBatchesMax: number;
  /** Proofs that are made at one time; each holds up to 32 MiB. */
  readonly proofsMax: number;
  /** Operations that wait for one VM or backup. */
  readonly lockWaitersMax: number;
}

export const FLEET_LIMITS: FleetLimits = {
  detachWaitMs: 10_000,
  attachmentsMax: 10_000,
  diskOwnersMax: 10_000,
  attachmentContextsMax: 64,
  importsMax: 8,
  importBatchesMax: 4,
  proofsMax: 4,
  lockWaitersMax: 10_000,
};

/** Items of one page of a list. */
export const PAGE_ITEMS_DEFAULT = 100;
export const PAGE_ITEMS_MAX = 1000;
