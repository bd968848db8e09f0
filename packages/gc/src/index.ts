export { account, reclaimable } from './account.ts';
export { collect } from './collect.ts';
export { Gate, gateOf } from './gate.ts';
export type * from './types.ts';
