/**
 * The anchor: one chunk that says where a mirror of the catalog is. docs/format.md has the table. Its id is the check of
 * its bytes, so it needs no other.
 */
import { ID_BYTES } from '@pando/common';
import { NODE_BYTES, type Root } from '@pando/tree';

/** Version of anchor and pages. */
export const ANCHOR_VERSION = 1;

const MAGIC = Buffer.from('PANDOCAT', 'latin1');
const STORE_ID_BYTES = 16;
const ROOT_AT = 64;

export interface Anchor {
  readonly version: number;
  /** Anchors are ordered by epoch, then by count; no two of a store have both alike. */
  readonly epoch: number;
  readonly count: number;
  /** Milliseconds since 1970 when what it holds was taken. */
  readonly at: number;
  readonly storeId: Uint8Array;
  readonly chunkBytes: number;
  readonly root: Root;
}

export function encodeAnchor(anchor: Omit<Anchor, 'version'>): Uint8Array {
  const bytes = Buffer.alloc(NODE_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32LE(ANCHOR_VERSION, 8);
  bytes.writeUInt32LE(anchor.chunkBytes, 12);
  bytes.set(anchor.storeId.subarray(0, STORE_ID_BYTES), 16);
  bytes.writeBigUInt64LE(BigInt(anchor.epoch), 32);
  bytes.writeBigUInt64LE(BigInt(anchor.count), 40);
  bytes.writeBigUInt64LE(BigInt(anchor.at), 48);
  bytes.writeBigUInt64LE(BigInt(anchor.root.size), 56);
  bytes.set(anchor.root.id, ROOT_AT);
  bytes.writeUInt32LE(anchor.root.height, ROOT_AT + ID_BYTES);
  return bytes;
}

/** What a chunk says as an anchor; undefined when it is none. Of a later version only the version counts. */
export function decodeAnchor(chunk: Uint8Array): Anchor | undefined {
  const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  if (bytes.byteLength !== NODE_BYTES || !bytes.subarray(0, 8).equals(MAGIC)) return undefined;
  return {
    version: bytes.readUInt32LE(8),
    chunkBytes: bytes.readUInt32LE(12),
    storeId: Uint8Array.from(bytes.subarray(16, 16 + STORE_ID_BYTES)),
    epoch: Number(bytes.readBigUInt64LE(32)),
    count: Number(bytes.readBigUInt64LE(40)),
    at: Number(bytes.readBigUInt64LE(48)),
    root: {
      size: Number(bytes.readBigUInt64LE(56)),
      id: Uint8Array.from(bytes.subarray(ROOT_AT, ROOT_AT + ID_BYTES)),
      height: bytes.readUInt32LE(ROOT_AT + ID_BYTES),
    },
  };
}
