export { listOwnedDisks, type OwnedDisk } from './disk-roots.ts';
export { openFleet, type FleetOptions, type OpenFleet } from './fleet.ts';
export { idSource } from './ids.ts';
export { FLEET_LIMITS, type FleetLimits } from './limits.ts';
export { backupMissing, vmMissing } from './lookup.ts';
export { checkName } from './names.ts';
export type * from './answer-types.ts';
export type * from './page-types.ts';
export type * from './types.ts';
