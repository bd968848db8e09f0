export * from './crash-model.ts';
export * from './mortal-catalog.ts';
