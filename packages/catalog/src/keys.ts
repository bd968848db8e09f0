/**
 * Keys of the catalog as bytes: table, one zero byte, key. UTF-8 keeps the order of code points, so
 * comparing bytes is the order that the catalog promises.
 */
import { PandoError } from '@pando/common';

/** Ends the name of a table; no table and no key may hold it. */
export const SEPARATOR = '\u0000';

/** Longest key of one table in bytes: far above what names and ids need, far below what LevelDB's blocks like. */
export const KEY_BYTES_MAX = 4096;

/** The catalog's own table: no caller may name it. */
export const META_TABLE = 'catalog-meta';
const META_PREFIX = Buffer.from(META_TABLE + SEPARATOR, 'utf8');

/**
 * The bytes under which a record lies.
 * @throws `internal`: keys are made by other packages, which check what people type
 */
export function keyBytes(table: string, key: string): Buffer {
  checkText('table', table);
  checkText('key', key);
  if (table === '') throw new PandoError('internal', 'a table of the catalog needs a name');
  const bytes = Buffer.from(table + SEPARATOR + key, 'utf8');
  if (bytes.byteLength > KEY_BYTES_MAX) {
    throw new PandoError(
      'internal',
      `a key of table ${table} has ${bytes.byteLength} bytes, more than ${KEY_BYTES_MAX}`,
    );
  }
  return bytes;
}

/** The key without its table. */
export function keyText(bytes: Buffer, table: string): string {
  return bytes.toString('utf8', Buffer.byteLength(table) + 1);
}

/** Table and key of stored bytes. */
export function recordName(bytes: Buffer): { readonly table: string; readonly key: string } {
  const end = bytes.indexOf(0);
  return { table: bytes.toString('utf8', 0, end), key: bytes.toString('utf8', end + 1) };
}

/** Whether stored bytes are the key of a record of the catalog's own. */
export function isMeta(bytes: Buffer): boolean {
  return bytes.subarray(0, META_PREFIX.byteLength).equals(META_PREFIX);
}

/** Table and key of stored bytes, for messages. */
export function describeKey(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  const table = bytes.toString('utf8', 0, Math.max(end, 0));
  return `table ${JSON.stringify(table)}, key ${JSON.stringify(bytes.toString('utf8', end + 1))}`;
}

/** A range of stored keys; `from` and `to` are both exclusive unless `fromIncluded`. */
export interface KeyRange {
  readonly from: Buffer;
  readonly fromIncluded: boolean;
  readonly to: Buffer;
}

/** The range of a table that a list asks for; undefined when nothing can be in it. */
export function keyRange(
  table: string,
  options: {
    readonly prefix?: string | undefined;
    readonly after?: string | undefined;
    readonly before?: string | undefined;
  },
): KeyRange | undefined {
  const prefix = keyBytes(table, options.prefix ?? '');
  let from = prefix;
  let fromIncluded = true;
  let to = endOfPrefix(prefix);
  if (options.after !== undefined) {
    const after = keyBytes(table, options.after);
    if (Buffer.compare(after, from) >= 0) {
      from = after;
      fromIncluded = false;
    }
  }
  if (options.before !== undefined) {
    const before = keyBytes(table, options.before);
    if (Buffer.compare(before, to) < 0) to = before;
  }
  return Buffer.compare(from, to) < 0 ? { from, fromIncluded, to } : undefined;
}

/** The first bytes after everything that begins with `prefix`. UTF-8 never holds 0xFF, so one step up is enough. */
function endOfPrefix(prefix: Buffer): Buffer {
  const end = Buffer.from(prefix);
  end[end.byteLength - 1]! += 1;
  return end;
}

function checkText(what: string, text: string): void {
  // A lone surrogate has no UTF-8 form; two of them would become the same bytes.
  if (text.includes(SEPARATOR) || !text.isWellFormed()) {
    throw new PandoError(
      'internal',
      `${what} of the catalog is not text that can be a key: ${JSON.stringify(text.slice(0, 80))}`,
    );
  }
}
