export { ROLES, type Actor, type Role, type Scope } from './types.ts';
