/** Bounds of this room. */

/** What was written goes into the catalog so often, and is judged then. */
export const FLUSH_EVERY_MS = 5 * 60_000;

/** VMs whose numbers wait in memory, a few hundred bytes each; what others write meanwhile is not counted. */
export const WAITING_VMS_MAX = 100_000;

/** Five-minute stretches of one VM that wait; further ones are added to the last. */
export const WAITING_BUCKETS_MAX = 4;

/** VMs that share a commit. */
export const FLUSH_VMS = 32;

/** Histories that each flush looks at, one after another, whether their VM is still there. */
export const SWEEP_RECORDS = 48;

/** A jump after so long without one is another one. */
export const EPISODE_QUIET_MS = 24 * 60 * 60_000;

/** The backup that is locked was taken so long before the jump, at least: what is seen now was written a moment ago. */
export const BACKUP_GUARD_MS = 60_000;

/** Backups of the VM that are looked through for it, newest first. */
export const BACKUPS_LOOKED_AT_MAX = 10_000;
