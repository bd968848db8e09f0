export * from './clock.ts';
export * from './errors.ts';
export type { File, FileSystem } from './file-system.ts';
export * from './id-set.ts';
export * from './ids.ts';
export * from './limits.ts';
export * from './memory-file-system.ts';
export * from './node-file-system.ts';
