/**
 * How far the audit trail goes, kept apart from it: in the catalog, now and then and when the trail is closed. A chain of hashes does not show that its last
 * lines are gone; this does, as long as whoever took them has not seen to the catalog too.
 *
 *     ~audit-head   head          → HeadRecord   a line that is durable, and has been when this was written
 *                   cut/<n>       → CutRecord    what a start found to be missing; the newest CUTS_MAX of them
 *
 * Not mirrored: a catalog that is made anew knows no head, and takes the trail as it is.
 */
import { checkRecord, type Catalog } from '@pando/catalog';

const TABLE = '~audit-head';
const VERSION = 1;
const HEAD = 'head';
const CUT = 'cut/';
export const CUTS_MAX = 100;

export interface AuditHead {
  /** Number of the line, and the SHA-256 of it. */
  readonly n: number;
  readonly hash: string;
}

/** Lines that were known and are not there, or are others. */
export interface AuditCut {
  /** The last line that was there. */
  readonly after: number;
  /** The last that was known. */
  readonly until: number;
  /** When it was found, milliseconds since 1970. */
  readonly at: number;
}

/** What the catalog knows of a trail. */
export interface AuditKnown {
  readonly head?: AuditHead;
  readonly cuts: readonly AuditCut[];
}

/** @throws `store-newer`, `catalog-corrupt` */
export async function readAuditKnown(catalog: Catalog): Promise<AuditKnown> {
  let head: AuditHead | undefined;
  const cuts: AuditCut[] = [];
  for (const { key, value } of await catalog.list(TABLE, { limit: CUTS_MAX + 1 })) {
    checkRecord(TABLE, key, value, VERSION);
    if (key === HEAD) head = value as AuditHead;
    else if (key.startsWith(CUT)) cuts.push(value as AuditCut);
  }
  return { ...(head === undefined ? {} : { head }), cuts };
}

export async function keepAuditHead(catalog: Catalog, { n, hash }: AuditHead): Promise<void> {
  await catalog.commit([{ type: 'put', table: TABLE, key: HEAD, value: { version: VERSION, n, hash } }]);
}

export async function keepAuditCut(
  catalog: Catalog,
  { after, until, at }: AuditCut,
  before: readonly AuditCut[],
): Promise<void> {
  const gone = before.slice(0, Math.max(0, before.length + 1 - CUTS_MAX));
  await catalog.commit([
    ...gone.map((cut) => ({ type: 'delete', table: TABLE, key: keyOf(cut) }) as const),
    { type: 'put', table: TABLE, key: keyOf({ until }), value: { version: VERSION, after, until, at } },
  ]);
}

function keyOf({ until }: Pick<AuditCut, 'until'>): string {
  return CUT + String(until).padStart(16, '0');
}
