export * from './crash-file-system.ts';
export * from './random.ts';
