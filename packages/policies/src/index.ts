export { openPolicies, type OpenPolicies, type PoliciesOptions } from './policies.ts';
export type { Retention } from './retention.ts';
export { WEEKDAYS, type Schedule, type Weekday } from './schedule.ts';
export type * from './types.ts';
