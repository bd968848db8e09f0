/**
 * The header of a qcow2 image, as far as it names other files or says that the image cannot be read.
 * Layout: the qcow2 specification (QEMU, docs/interop/qcow2.rst). Everything else in it is left to QEMU.
 */
import { DISK_BYTES_MAX, PandoError } from '@pando/common';
import { readAt, type ImageFile } from './image-file.ts';

const MAGIC = 0x5146_49fb;
const HEADER_BYTES_V2 = 72;
const HEADER_BYTES_V3 = 104;
const CLUSTER_BITS_MIN = 9;
const CLUSTER_BITS_MAX = 21;
const BACKING_NAME_BYTES_MAX = 1023;
const BACKING_FORMAT_EXTENSION = 0xe279_2aca;
const DATA_FILE_BIT = 1n << 2n;

export interface Qcow2Header {
  readonly backing: { readonly name: string; readonly format: string | undefined } | undefined;
}

/** @throws `image-format-mismatch`, `image-damaged`, `image-unsupported` */
export async function readQcow2Header(file: ImageFile): Promise<Qcow2Header> {
  const head = await readAt(file, 0, HEADER_BYTES_V3);
  if (head.length < 4 || head.readUInt32BE(0) !== MAGIC) {
    throw new PandoError('image-format-mismatch', `${file.path} is not a qcow2 image`);
  }
  if (head.length < HEADER_BYTES_V2) throw damaged(file, 'its header is cut off');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw unsupported(file, `qcow version ${version}`);
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < CLUSTER_BITS_MIN || clusterBits > CLUSTER_BITS_MAX) {
    throw damaged(file, `clusters of 2^${clusterBits} bytes`);
  }
  const size = head.readBigUInt64BE(24);
  if (size > BigInt(DISK_BYTES_MAX)) {
    throw new PandoError('size-invalid', `${file.path} claims a disk of ${size} bytes; the most is 64 TiB`);
  }
  if (head.readUInt32BE(32) !== 0) throw unsupported(file, 'encrypted');
  // QEMU would read a table that is missing as one that is empty, and `qemu-img check` would not mind.
  const tableEnd = head.readBigUInt64BE(40) + BigInt(head.readUInt32BE(36)) * 8n;
  if (tableEnd > BigInt(file.bytes)) throw damaged(file, 'it is cut off: its first table lies past its end');
  let headerBytes = HEADER_BYTES_V2;
  if (version === 3) {
    if (head.length < HEADER_BYTES_V3) throw damaged(file, 'its header is cut off');
    if ((head.readBigUInt64BE(72) & DATA_FILE_BIT) !== 0n) {
      throw unsupported(file, 'a qcow2 image that keeps its data in another file');
    }
    headerBytes = head.readUInt32BE(100);
    if (headerBytes < HEADER_BYTES_V3 || headerBytes > 2 ** clusterBits) {
      throw damaged(file, `a header of ${headerBytes} bytes`);
    }
  }
  const nameAt = head.readBigUInt64BE(8);
  if (nameAt === 0n) return { backing: undefined };
  const nameBytes = head.readUInt32BE(16);
  const end = nameAt + BigInt(nameBytes);
  if (nameBytes === 0 || nameBytes > BACKING_NAME_BYTES_MAX || end > BigInt(2 ** clusterBits)) {
    throw damaged(file, 'the name of its backing file lies outside its header');
  }
  const cluster = await readAt(file, 0, Number(end));
  if (cluster.length < Number(end)) throw damaged(file, 'its header is cut off');
  const name = cluster.subarray(Number(nameAt)).toString();
  return { backing: { name, format: backingFormat(cluster, headerBytes, Number(nameAt)) } };
}

/** The extension that states it: (type, length, data padded to 8 bytes), ended by type 0 or the backing name. */
function backingFormat(cluster: Buffer, from: number, to: number): string | undefined {
  for (let at = from; at + 8 <= to;) {
    const type = cluster.readUInt32BE(at);
    const length = cluster.readUInt32BE(at + 4);
    if (type === 0) return undefined;
    if (type === BACKING_FORMAT_EXTENSION)
      return cluster.toString('latin1', at + 8, Math.min(at + 8 + length, to));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}

function damaged(file: ImageFile, what: string): PandoError {
  return new PandoError('image-damaged', `${file.path}: ${what}`);
}

function unsupported(file: ImageFile, what: string): PandoError {
  return new PandoError('image-unsupported', `${file.path} is ${what}`);
}
