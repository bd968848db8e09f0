export { fits, inScope, SCOPE_ITEMS_MAX, type Scoped } from './scope.ts';
export { tokenIdOf, withoutSecrets } from './token-text.ts';
export { Tokens, TOKENS_MAX, type NewToken, type Token, type TokensOptions } from './tokens.ts';
export { actorKey, mayAs, ROLES, type Actor, type Role, type Scope } from './types.ts';
export type { Audited, AuditEntry, Outcome } from './types.ts';
export { AuditTrail, type AuditOptions } from './audit.ts';
export { listAudit, verifyAudit, type AuditQuery, type AuditVerification } from './audit-files.ts';
export { readAuditKnown, type AuditCut, type AuditKnown } from './audit-head.ts';
