export { openLevelCatalog } from './level-catalog.ts';
export { MemoryCatalog } from './memory-catalog.ts';
export { checkRecord, decodeStored } from './records.ts';
export type * from './types.ts';
