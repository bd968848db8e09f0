export { DISK_TABLE, checkRecord, diskKey } from './disk.ts';
export { rootOf } from './recovery.ts';
export type * from './types.ts';
export { openVolumes, type VolumesOptions } from './volumes.ts';
