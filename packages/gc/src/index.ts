export { account, reclaimable } from './account.ts';
export { collect } from './collect.ts';
export { DAMAGED_DISKS_MAX, DAMAGED_RANGES_MAX, findDamage } from './damage.ts';
export { Gate, gateOf } from './gate.ts';
export { HeldSets, HeldSetsBuilder } from './held-sets.ts';
export { planFew, planInOrder, type ReclaimPlan } from './reclaim-plan.ts';
export type * from './types.ts';
