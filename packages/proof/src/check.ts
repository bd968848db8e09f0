/** Checks a proof with nothing but the proof. What it says is true of the disk with that root; which root is the right one, the caller has to know. */
import { blake3 } from '@noble/hashes/blake3.js';
import {
  BITMAP_BYTES,
  FANOUT,
  HEADER_BYTES,
  ID_BYTES,
  NODE_BYTES,
  ProofError,
  isHole,
  readHeader,
  type ProofClaim,
} from './format.ts';

/** What a proof has proven. */
export interface ProvenRange extends ProofClaim {
  /** The bytes of the disk from `offset`, `length` of them. */
  readonly data: Uint8Array;
  /** Chunks and nodes that were hashed. */
  readonly chunks: number;
  readonly nodes: number;
}

/**
 * The bytes that the proof proves.
 * @throws ProofError when it proves nothing: it is damaged, forged, too short or too long, or about something that cannot be
 */
export function checkProof(proof: Uint8Array): ProvenRange {
  const claim = readHeader(proof);
  const { rootId, height, chunkBytes, offset, length } = claim;
  const data = new Uint8Array(length);
  const end = offset + length;
  let at = HEADER_BYTES;
  let chunks = 0;
  let nodes = 0;

  const take = (bytes: number): Uint8Array => {
    if (proof.length - at < bytes) throw new ProofError('it ends too early');
    at += bytes;
    return proof.subarray(at - bytes, at);
  };

  /** What lies at `start` under an id of `level`; the part of it that is in the range. */
  const walk = (ids: Uint8Array, idAt: number, level: number, start: number): void => {
    if (isHole(ids, idAt)) return; // `data` is zeros already
    if (level === 0) {
      const chunk = take(chunkBytes);
      mustHash(chunk, ids, idAt, 'chunk', start);
      chunks++;
      const from = Math.max(start, offset);
      const to = Math.min(start + chunkBytes, end);
      data.set(chunk.subarray(from - start, to - start), from - offset);
      return;
    }
    const node = new Uint8Array(NODE_BYTES);
    const bitmap = take(BITMAP_BYTES);
    for (let child = 0; child < FANOUT; child++) {
      if ((bitmap[child >> 3]! & (1 << (child & 7))) === 0) continue;
      const id = take(ID_BYTES);
      // Else there were several proofs of the same.
      if (isHole(id, 0)) throw new ProofError(`the node at byte ${start} names a hole`);
      node.set(id, child * ID_BYTES);
    }
    mustHash(node, ids, idAt, 'node', start);
    nodes++;
    const span = FANOUT ** (level - 1) * chunkBytes;
    const first = Math.max(0, Math.floor((offset - start) / span));
    for (let child = first; child < FANOUT && start + child * span < end; child++) {
      walk(node, child * ID_BYTES, level - 1, start + child * span);
    }
  };
  walk(rootId, 0, height, 0);
  if (at !== proof.length) throw new ProofError(`it has ${proof.length - at} bytes too many`);
  return { ...claim, data, chunks, nodes };
}

function mustHash(bytes: Uint8Array, ids: Uint8Array, idAt: number, kind: string, start: number): void {
  const id = blake3(bytes);
  for (let i = 0; i < ID_BYTES; i++) {
    if (id[i] !== ids[idAt + i])
      throw new ProofError(`the ${kind} at byte ${start} is not the one that it must be`);
  }
}
