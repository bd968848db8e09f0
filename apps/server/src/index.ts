export { formatAddress, parseAddress, type Address } from './addresses.ts';
export { type Addresses } from './listen.ts';
export { METRICS } from './metrics.ts';
export {
  LOG_LEVELS,
  runOptions,
  SERVE_FLAGS,
  type Flag,
  type RunOptions,
  type ServeOptions,
} from './options.ts';
export {
  rebuildCatalog,
  type CatalogRebuilt,
  type CatalogRebuildOptions,
  type CatalogRebuildReport,
} from './rebuild-catalog.ts';
export { verifyAuditOffline } from './verify-audit.ts';
export { resetAdminTokenOffline } from './reset-token.ts';
export { rebuildIndex, repairOffline, verifyOffline } from './rebuild-index.ts';
export { type RepairWork } from './repair.ts';
export { run } from './run.ts';
export { serve, type Serving } from './serve.ts';
export { openStoreSource, type StoreSource } from './store-source.ts';
export { type VerifyWork } from './verify.ts';
export { VERSION } from './version.ts';
