export { DISK_TABLE, checkRecord, diskKey, rootOf } from './disk.ts';
export { rootsNow } from './roots.ts';
export { LogLossError } from './log-loss.ts';
export { fitToLog, type FitOptions } from './fit-to-log.ts';
export type * from './types.ts';
export { openVolumes, type VolumesOptions } from './volumes.ts';
