/**
 * What the mirror keeps in the catalog itself, in tables that are not mirrored: their names begin with `~`.
 *
 *     ~mirror          state                            → MirrorState
 *     ~mirror-page     page set / position of its first → slots of the page
 *     ~mirror-change   generation / position            → nothing: this record has changed since a mirror
 *
 * A *position* stands for a stored key: table, U+0001, key. It sorts as the stored key does, and can be part of another.
 */
import { checkRecord, type Catalog, type CatalogOperation, type RecordName } from '@pando/catalog';
import { PandoError } from '@pando/common';
import type { Root } from '@pando/tree';

export const STATE_TABLE = '~mirror';
export const STATE_KEY = 'state';
export const PAGE_TABLE = '~mirror-page';
export const CHANGE_TABLE = '~mirror-change';

/** What can be done without when a catalog is made anew, and is written by a server that nobody asks for anything. */
const NOT_MIRRORED: ReadonlySet<string> = new Set(['verification', 'event', 'webhook-place', 'space-sample']);

/** Where derived tables begin: they sort behind all others. */
export const END: RecordName = { table: '~', key: '' };

const VERSION = 1;
const SEPARATOR = '\u0001';
const DIGITS = 12;

/** A durable mirror. */
export interface MirrorRef {
  readonly epoch: number;
  readonly count: number;
  readonly at: number;
  readonly anchorId: Uint8Array;
  readonly rootId: Uint8Array;
  readonly rootHeight: number;
  readonly rootSize: number;
}

export interface MirrorState {
  readonly version: 1;
  /** Raised at every start, before any anchor of that process is written. */
  readonly epoch: number;
  /** The pages of which `~mirror-page` are those of the newest mirror. */
  readonly pageSet: number;
  /** Pages, and slots that were ever given to one. */
  readonly pages: number;
  readonly slots: number;
  readonly current?: MirrorRef;
  readonly previous?: MirrorRef;
}

export interface PageRecord {
  readonly version: 1;
  readonly slots: readonly number[];
}

/** Tables of what can be made anew or does not matter are left out. @throws `internal` for a name that no table may have */
export function isMirrored(table: string): boolean {
  // They would lie behind the derived ones, where no mirror looks.
  if (!(table < '\u007f')) throw new PandoError('internal', `names of tables begin with ASCII, not ${table}`);
  return !table.startsWith('~') && !NOT_MIRRORED.has(table);
}

export function positionOf({ table, key }: RecordName): string {
  return table + SEPARATOR + key;
}

export function nameAt(position: string): RecordName {
  const end = position.indexOf(SEPARATOR);
  return { table: position.slice(0, end), key: position.slice(end + 1) };
}

/** What follows `position` at once: an exclusive bound that lets it in. */
export function justAfter(position: string): string {
  return position + SEPARATOR;
}

export function pagePrefix(pageSet: number): string {
  return `${digits(pageSet)}/`;
}

/** Generations of later epochs, and later ones of an epoch, sort behind. */
export function changePrefix(epoch: number, generation: number): string {
  return `${digits(epoch)}-${digits(generation)}/`;
}

export const CHANGE_PREFIX_LENGTH = changePrefix(0, 0).length;

function digits(number: number): string {
  return String(number).padStart(DIGITS, '0');
}

/** @throws `store-newer`, `catalog-corrupt` */
export async function readState(catalog: Pick<Catalog, 'get'>): Promise<MirrorState | undefined> {
  const found = await catalog.get(STATE_TABLE, STATE_KEY);
  if (found === undefined) return undefined;
  checkRecord(STATE_TABLE, STATE_KEY, found, VERSION);
  return found as MirrorState;
}

export function putState(state: MirrorState): CatalogOperation {
  return { type: 'put', table: STATE_TABLE, key: STATE_KEY, value: state };
}

export function putPage(key: string, slots: readonly number[]): CatalogOperation {
  const value: PageRecord = { version: VERSION, slots };
  return { type: 'put', table: PAGE_TABLE, key, value };
}

export function rootOf({ rootId, rootHeight, rootSize }: MirrorRef): Root {
  return { id: new Uint8Array(rootId), height: rootHeight, size: rootSize };
}
