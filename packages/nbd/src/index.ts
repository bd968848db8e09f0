export { DEFAULT_LIMITS } from './limits.ts';
export type { NbdLimits } from './limits.ts';
export { createNbdServer } from './server.ts';
export type {
  ExportHandle,
  ExportProvider,
  Logger,
  NbdAddress,
  NbdServer,
  NbdServerOptions,
  NbdServerStats,
} from './types.ts';
