/** Bounds and grains that several packages share. A bound of one package only lives in that package. */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** Disks are whole sectors. */
export const SECTOR_BYTES = 512;
export const DISK_BYTES_MIN = SECTOR_BYTES;
export const DISK_BYTES_MAX = 64 * TiB;

/** Dedupe grain of a store: a power of two between these, fixed when the store is created. */
export const CHUNK_BYTES_MIN = 4 * KiB;
export const CHUNK_BYTES_MAX = 64 * KiB;
export const CHUNK_BYTES_DEFAULT = 4 * KiB;

export const NAME_BYTES_MAX = 255;

/** Most disks of one VM. */
export const VM_DISKS_MAX = 64;

/** Most tags of one VM. */
export const VM_TAGS_MAX = 32;

/** Note and labels of a backup. */
export const NOTE_BYTES_MAX = 4096;
export const LABELS_MAX = 32;
export const LABEL_NAME_BYTES_MAX = 63;
export const LABEL_VALUE_BYTES_MAX = 255;

/** The longest time that a backup is locked for at once: a slip of the keyboard is not to last for ever. */
export const LOCK_DAYS_MAX = 3660;
/** And for which the tripwire locks one, unless told otherwise. */
export const TRIPWIRE_LOCK_DAYS = 30;

/** Most clones that one call makes. */
export const CLONES_MAX = 10_000;
