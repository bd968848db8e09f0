export { buildApi } from './app.ts';
export { boundConnections } from './connections.ts';
export {
  DEFAULT_LIMITS,
  type ApiLimits,
  type ApiOptions,
  type App,
  type Engine,
  type RepairSource,
  type SpaceHistorySource,
} from './context.ts';
export { HttpCounts, type HttpCount } from './http-counts.ts';
export { Jobs, type JobWork, type StartedJob } from './jobs.ts';
export { problemOf, statusOf } from './plugins/errors.ts';
export { STORE_LANE } from './plugins/work.ts';
export type { Problem } from './schemas/common.ts';
export type { Backup, ImportResult, Vm } from './schemas/fleet.ts';
export type {
  GcReport,
  Job,
  JobKind,
  JobState,
  LastVerifications,
  Progress,
  ReadyCheck,
  RepairReport,
  VerifyReport,
} from './schemas/work.ts';
