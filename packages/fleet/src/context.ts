/** What the parts of the fleet share: the rooms below it, its locks, and who is attached. */
import type { Catalog } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import type { Clock } from '@pando/common';
import type { Volumes } from '@pando/volume';
import type { Attachments } from './attachments.ts';
import type { DiskOwners } from './disk-owners.ts';
import type { FleetLimits } from './limits.ts';
import type { Locks, Reservations } from './locks.ts';
import type { TrustedTime } from './trusted-time.ts';
import type { Backup } from './types.ts';

export interface FleetContext {
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  readonly volumes: Volumes;
  readonly clock: Clock;
  /** What locks and expiry count by. */
  readonly time: TrustedTime;
  readonly limits: FleetLimits;
  /** Locks by id of a VM or backup. A VM's is held shared by what forks or opens its disks, exclusively by what changes it. */
  readonly locks: Locks;
  /** Names that are being given: `vm/<name>` and `backup/<vm id>/<name>`. */
  readonly reservations: Reservations;
  readonly attachments: Attachments;
  readonly owners: DiskOwners;
  /** Aborted when the fleet closes. */
  readonly closing: AbortSignal;
  /** A backup was let go of because its time had come, by its own date or its policy. */
  readonly onExpired: (backup: Backup) => void;
  /** A fresh id, greater than all before it. */
  newId(): string;
}
