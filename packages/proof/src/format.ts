/**
 * The format of a proof, version 1 (docs/proofs.md): a header, then pieces without anything between them.
 *
 * A piece is a node on the way to the range, or a chunk of it. They come in the order of a walk from the top, children in order,
 * so that everything about the next piece is known before it is read: its kind, its size, and the id that it must have. A hole has no piece.
 */

export const MAGIC = 'PANDOPRF';
export const VERSION = 1;
export const HEADER_BYTES = 80;
export const ID_BYTES = 32;
export const FANOUT = 128;
/** Which children of a node are no holes: a bit each. */
export const BITMAP_BYTES = FANOUT / 8;
export const NODE_BYTES = FANOUT * ID_BYTES;

/** Longest range of one proof. */
export const PROOF_RANGE_BYTES_MAX = 16 * 1024 * 1024;
const CHUNK_BYTES_MIN = 4096;
const CHUNK_BYTES_MAX = 65_536;
const SECTOR_BYTES = 512;
const DISK_BYTES_MAX = 64 * 1024 ** 4;

/** What a proof is about. */
export interface ProofClaim {
  /** Id of the top node of the disk, 32 bytes; zeros for a disk that is all hole. */
  readonly rootId: Uint8Array;
  /** Levels of nodes above the chunks. */
  readonly height: number;
  readonly sizeBytes: number;
  readonly chunkBytes: number;
  /** The range whose bytes are proven. */
  readonly offset: number;
  readonly length: number;
}

/** Why something is no proof. */
export class ProofError extends Error {
  readonly code = 'proof-invalid';

  constructor(message: string) {
    super(message);
    this.name = 'ProofError';
  }
}

/** Levels of nodes above the chunks of a disk: as few as cover it, at least 1. */
export function heightOf(sizeBytes: number, chunkBytes: number): number {
  const chunks = Math.ceil(sizeBytes / chunkBytes);
  let height = 1;
  while (FANOUT ** height < chunks) height++;
  return height;
}

/** @throws ProofError when there can be no such disk, or no proof of such a range */
export function checkClaim({ rootId, height, sizeBytes, chunkBytes, offset, length }: ProofClaim): void {
  if (rootId.length !== ID_BYTES) throw new ProofError(`an id has ${ID_BYTES} bytes, not ${rootId.length}`);
  const isPower = (chunkBytes & (chunkBytes - 1)) === 0;
  if (!(isPower && chunkBytes >= CHUNK_BYTES_MIN && chunkBytes <= CHUNK_BYTES_MAX)) {
    throw new ProofError(`there are no chunks of ${chunkBytes} bytes`);
  }
  if (!(sizeBytes >= SECTOR_BYTES && sizeBytes <= DISK_BYTES_MAX && sizeBytes % SECTOR_BYTES === 0)) {
    throw new ProofError(`there are no disks of ${sizeBytes} bytes`);
  }
  if (height !== heightOf(sizeBytes, chunkBytes)) {
    throw new ProofError(`a disk of ${sizeBytes} bytes has no tree of height ${height}`);
  }
  if (!(Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(length) && length >= 1)) {
    throw new ProofError('the range is none');
  }
  if (length > PROOF_RANGE_BYTES_MAX) {
    throw new ProofError(`a proof is of at most ${PROOF_RANGE_BYTES_MAX} bytes, not ${length}`);
  }
  if (offset + length > sizeBytes) {
    throw new ProofError(`${length} bytes at ${offset} are not inside a disk of ${sizeBytes} bytes`);
  }
}

export function writeHeader(claim: ProofClaim): Uint8Array {
  checkClaim(claim);
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  for (let i = 0; i < MAGIC.length; i++) header[i] = MAGIC.charCodeAt(i);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, claim.chunkBytes, true);
  view.setBigUint64(16, BigInt(claim.sizeBytes), true);
  view.setBigUint64(24, BigInt(claim.offset), true);
  view.setBigUint64(32, BigInt(claim.length), true);
  view.setUint32(40, claim.height, true);
  header.set(claim.rootId, 48);
  return header;
}

/** @throws ProofError */
export function readHeader(proof: Uint8Array): ProofClaim {
  if (proof.length < HEADER_BYTES) throw new ProofError('it is too short for a proof');
  for (let i = 0; i < MAGIC.length; i++) {
    if (proof[i] !== MAGIC.charCodeAt(i)) throw new ProofError('it is no proof');
  }
  const view = new DataView(proof.buffer, proof.byteOffset, proof.byteLength);
  const version = view.getUint32(8, true);
  if (version !== VERSION) throw new ProofError(`it is of version ${version}, which is not known here`);
  if (view.getUint32(44, true) !== 0) throw new ProofError('bytes 44 to 47 of the header must be zeros');
  const claim = {
    rootId: proof.slice(48, 48 + ID_BYTES),
    height: view.getUint32(40, true),
    sizeBytes: readLength(view, 16),
    chunkBytes: view.getUint32(12, true),
    offset: readLength(view, 24),
    length: readLength(view, 32),
  };
  checkClaim(claim);
  return claim;
}

function readLength(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ProofError('a length in the header is absurd');
  return Number(value);
}

export function isHole(ids: Uint8Array, at: number): boolean {
  for (let i = 0; i < ID_BYTES; i++) if (ids[at + i] !== 0) return false;
  return true;
}
