export { DEFAULT_LIMITS } from './limits.ts';
export type { NbdLimits } from './limits.ts';
export { createNbdServer } from './server.ts';
export type {
  ClientIdentity,
  ExportHandle,
  ExportProvider,
  Logger,
  NbdAddress,
  NbdServer,
  NbdServerOptions,
  NbdServerStats,
  StatusSource,
} from './types.ts';
