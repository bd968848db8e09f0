export * from './crash-model.ts';
export * from './mortal-catalog.ts';
export * from './status-model.ts';
