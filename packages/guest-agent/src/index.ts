export { GuestAgent } from './agent.ts';
export type { Quiesce } from './types.ts';
export { Quiescer, type QuiescerOptions, type QuiesceLimits, QUIESCE_LIMITS } from './quiescer.ts';
