/**
 * Pages: records of the catalog as chunks. A page holds a range of keys; it is cut into as many pieces as it takes, one as a
 * rule, each a chunk in a slot of its own. docs/format.md has the tables.
 */
import { PandoError } from '@pando/common';
import type { StoredRecord } from '@pando/catalog';

const MAGIC = Buffer.from('PCAT', 'latin1');
const HEADER_BYTES = 16;
const ENTRY_BYTES = 6;

/** What one chunk takes of a page. */
export function capacityOf(chunkBytes: number): number {
  return chunkBytes - HEADER_BYTES;
}

/** Bytes that a record takes in a page. */
export function entryBytes({ table, key, value }: StoredRecord): number {
  return ENTRY_BYTES + Buffer.byteLength(table) + 1 + Buffer.byteLength(key) + value.byteLength;
}

/** Chunks that a page of these records needs: none for none. */
export function piecesOf(records: readonly StoredRecord[], chunkBytes: number): number {
  const bytes = records.reduce((sum, record) => sum + entryBytes(record), 0);
  return Math.ceil(bytes / capacityOf(chunkBytes));
}

/** The chunks of a page that go into `slots`, one after another, padded with zeros. */
export function encodePage(
  records: readonly StoredRecord[],
  slots: readonly number[],
  chunkBytes: number,
): Uint8Array {
  const content = Buffer.concat(records.flatMap(encodeEntry));
  const capacity = capacityOf(chunkBytes);
  const bytes = Buffer.alloc(slots.length * chunkBytes);
  for (let piece = 0; piece < slots.length; piece++) {
    const part = content.subarray(piece * capacity, (piece + 1) * capacity);
    const at = piece * chunkBytes;
    bytes.set(MAGIC, at);
    bytes.writeUInt32LE(slots[0]!, at + 4);
    bytes.writeUInt16LE(piece, at + 8);
    bytes.writeUInt16LE(slots.length, at + 10);
    bytes.writeUInt32LE(part.byteLength, at + 12);
    bytes.set(part, at + HEADER_BYTES);
  }
  return bytes;
}

function encodeEntry({ table, key, value }: StoredRecord): Uint8Array[] {
  const stored = Buffer.from(`${table}\u0000${key}`, 'utf8');
  const header = Buffer.alloc(ENTRY_BYTES);
  header.writeUInt16LE(stored.byteLength, 0);
  header.writeUInt32LE(value.byteLength, 2);
  return [header, stored, value];
}

/** Puts pages together again, whose pieces come in any order. */
export class PageReader {
  readonly #pieces = new Map<number, (Buffer | undefined)[]>();

  /** The records of the page that this chunk makes whole; none otherwise. @throws `catalog-corrupt` when it is no piece of a page */
  add(chunk: Uint8Array): StoredRecord[] {
    const bytes = Buffer.from(chunk); // a copy: it may have to wait for others
    if (!bytes.subarray(0, 4).equals(MAGIC)) throw corrupt('a chunk that is no page');
    const page = bytes.readUInt32LE(4);
    const piece = bytes.readUInt16LE(8);
    const count = bytes.readUInt16LE(10);
    const length = bytes.readUInt32LE(12);
    if (piece >= count || length > bytes.byteLength - HEADER_BYTES)
      throw corrupt(`page ${page} with piece ${piece} of ${count}`);
    const pieces = this.#pieces.get(page) ?? new Array<undefined>(count);
    if (pieces.length !== count || pieces[piece] !== undefined) throw corrupt(`page ${page} twice`);
    pieces[piece] = bytes.subarray(HEADER_BYTES, HEADER_BYTES + length);
    this.#pieces.set(page, pieces);
    const there = pieces.filter((part) => part !== undefined);
    if (there.length < count) return [];
    this.#pieces.set(page, []);
    return [...entriesOf(Buffer.concat(there), page)];
  }

  /** @throws `catalog-corrupt` when pieces are missing */
  finish(): void {
    for (const [page, pieces] of this.#pieces)
      if (pieces.length > 0) throw corrupt(`a part of page ${page} only`);
  }
}

function* entriesOf(content: Buffer, page: number): Generator<StoredRecord> {
  for (let at = 0; at < content.byteLength;) {
    if (at + ENTRY_BYTES > content.byteLength) throw corrupt(`page ${page}, cut off`);
    const keyAt = at + ENTRY_BYTES;
    const valueAt = keyAt + content.readUInt16LE(at);
    const end = valueAt + content.readUInt32LE(at + 2);
    const separator = content.indexOf(0, keyAt);
    if (end > content.byteLength || separator < keyAt || separator >= valueAt)
      throw corrupt(`page ${page}, cut off`);
    yield {
      table: content.toString('utf8', keyAt, separator),
      key: content.toString('utf8', separator + 1, valueAt),
      value: content.subarray(valueAt, end),
    };
    at = end;
  }
}

function corrupt(what: string): PandoError {
  return new PandoError('catalog-corrupt', `the mirror of the catalog holds ${what}`);
}
