/**
 * What tokens are in the catalog.
 *
 *     token        id → TokenRecord
 *     ~token-use   id → UseRecord     written now and then; not mirrored, because losing it does no harm
 */
import { checkRecord, type Catalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { ROLES, type Role, type Scope } from './types.ts';

const VERSION = 1;
export const TOKEN_TABLE = 'token';
export const USE_TABLE = '~token-use';

export interface TokenRecord {
  readonly version: 1;
  readonly name: string;
  readonly role: Role;
  readonly scope?: Scope;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  readonly expiresAt?: number;
  /** SHA-256 of the secret. */
  readonly hash: Uint8Array;
}

export interface UseRecord {
  readonly version: 1;
  readonly at: number;
  readonly from: string;
}

export interface Stored<R> {
  readonly id: string;
  readonly record: R;
}

/** @throws `store-newer`, `catalog-corrupt` */
export async function readTokens(
  catalog: Catalog,
  limit: number,
): Promise<{ tokens: Stored<TokenRecord>[]; uses: Map<string, UseRecord> }> {
  const tokens = (await catalog.list(TOKEN_TABLE, { limit })).map(({ key, value }) => {
    checkRecord(TOKEN_TABLE, key, value, VERSION);
    const record = value as TokenRecord;
    // Who reads a role or a scope that this program does not know must not take it for none.
    const { vms, tags, ...others } = record.scope ?? {};
    if (!ROLES.includes(record.role) || Object.keys(others).length > 0 || !isList(vms) || !isList(tags))
      throw new PandoError('catalog-corrupt', `the token ${key} has a role or scope that nobody knows`);
    return { id: key, record };
  });
  const uses = (await catalog.list(USE_TABLE, { limit })).map(({ key, value }) => {
    checkRecord(USE_TABLE, key, value, VERSION);
    return [key, value as UseRecord] as const;
  });
  return { tokens, uses: new Map(uses) };
}

function isList(value: unknown): boolean {
  return value === undefined || (Array.isArray(value) && value.every((item) => typeof item === 'string'));
}
