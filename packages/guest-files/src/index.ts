export { openGuestFiles } from './guest-files.ts';
export type { GuestFilesOptions } from './guest-files.ts';
export { DEFAULT_LIMITS, PATH_BYTES_MAX } from './limits.ts';
export type { GuestFilesLimits } from './limits.ts';
export type * from './types.ts';
