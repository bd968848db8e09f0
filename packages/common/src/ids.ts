/**
 * Ids: the 32-byte BLAKE3-256 names of chunks, and their printed form.
 *
 * Ids travel in bulk as `count × 32` bytes in one buffer, never as one object each; functions here
 * take (buffer, byte offset). A hole (an all-zero range) is written as 32 zero bytes where an id
 * would stand; no chunk has that id.
 */
import { PandoError } from './errors.ts';

/** Bytes of one id. */
export const ID_BYTES = 32;

/** The id that stands for a hole: 32 zero bytes. Never write to it. */
export const HOLE_ID: Uint8Array = new Uint8Array(ID_BYTES);

/** Whether the 32 bytes at `offset` stand for a hole. */
export function isHole(ids: Uint8Array, offset = 0): boolean {
  for (let i = 0; i < ID_BYTES; i++) {
    if (ids[offset + i] !== 0) return false;
  }
  return true;
}

/** Whether two ids are the same. */
export function idsEqual(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number): boolean {
  for (let i = 0; i < ID_BYTES; i++) {
    if (a[aOffset + i] !== b[bOffset + i]) return false;
  }
  return true;
}

/** Prints an id as 64 hex digits. */
export function idToHex(ids: Uint8Array, offset = 0): string {
  return Buffer.from(ids.buffer, ids.byteOffset + offset, ID_BYTES).toString('hex');
}

/**
 * Reads 64 hex digits back into a fresh 32-byte id.
 * @throws PandoError `id-invalid`
 */
export function idFromHex(text: string): Uint8Array {
  if (!/^[0-9a-f]{64}$/i.test(text)) {
    throw new PandoError('id-invalid', `an id is 64 hex digits, not ${JSON.stringify(text.slice(0, 80))}`);
  }
  return new Uint8Array(Buffer.from(text, 'hex'));
}

/**
 * Stands in a leaf for a chunk of which the contents are lost for good: no chunk has this id, so it reads as an error until
 * it is written anew, on every disk that shares the leaf.
 */
export const LOST_ID: Uint8Array = Buffer.from('pando: what was here is lost ...', 'latin1');

/** Whether the id at `ids[offset…]` is that of what is lost. */
export function isLost(ids: Uint8Array, offset: number): boolean {
  return ids[offset] === LOST_ID[0] && idsEqual(ids, offset, LOST_ID, 0);
}
