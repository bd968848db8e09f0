export { parseAccessPolicy } from './access.ts';
export type { Access, AccessPolicy } from './access.ts';
export { DEFAULT_LIMITS } from './limits.ts';
export type { NbdLimits } from './limits.ts';
export type { CommandCounts } from './request-counters.ts';
export { createNbdServer } from './server.ts';
export { tlsCredentials } from './tls.ts';
export type { TlsCredentials, TlsFiles } from './tls.ts';
export type {
  ClientIdentity,
  ExportHandle,
  ExportProvider,
  Logger,
  NbdAddress,
  NbdSecurity,
  NbdServer,
  NbdServerOptions,
  NbdServerStats,
  StatusSource,
  TlsMode,
} from './types.ts';
