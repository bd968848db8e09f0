/** Makes a proof of a range from what reads nodes and chunks. */
import { BITMAP_BYTES, FANOUT, ID_BYTES, isHole, writeHeader, type ProofClaim } from './format.ts';

/** Reads what a tree is made of. */
export interface ProofSource {
  /** The 4096 bytes of the node whose id stands at `ids[at]`. */
  node(ids: Uint8Array, at: number): Promise<Uint8Array>;
  /** The bytes of chunks `first … first + count − 1` of a leaf, one after another; of a hole, anything. */
  chunks(leaf: Uint8Array, first: number, count: number): Promise<Uint8Array>;
}

/**
 * The pieces of a proof, one after another: its bytes, when they are put together.
 * @throws ProofError when there can be no such proof, and the errors of the source
 */
export async function* makeProof(claim: ProofClaim, source: ProofSource): AsyncGenerator<Uint8Array, void> {
  yield writeHeader(claim);
  const { rootId, height, chunkBytes, offset, length } = claim;
  const end = offset + length;

  async function* walk(
    ids: Uint8Array,
    at: number,
    level: number,
    start: number,
  ): AsyncGenerator<Uint8Array> {
    if (isHole(ids, at)) return;
    const node = await source.node(ids, at);
    yield encodeNode(node);
    const span = FANOUT ** (level - 1) * chunkBytes;
    const first = Math.max(0, Math.floor((offset - start) / span));
    const last = Math.min(FANOUT, Math.ceil((end - start) / span));
    if (level > 1) {
      for (let child = first; child < last; child++) {
        yield* walk(node, child * ID_BYTES, level - 1, start + child * span);
      }
      return;
    }
    const chunks = await source.chunks(node, first, last - first);
    for (let child = first; child < last; child++) {
      const from = (child - first) * chunkBytes;
      if (!isHole(node, child * ID_BYTES)) yield chunks.subarray(from, from + chunkBytes);
    }
  }
  yield* walk(rootId, 0, height, 0);
}

/** A node without its holes. */
function encodeNode(node: Uint8Array): Uint8Array {
  const piece = new Uint8Array(BITMAP_BYTES + node.length);
  let end = BITMAP_BYTES;
  for (let child = 0; child < FANOUT; child++) {
    if (isHole(node, child * ID_BYTES)) continue;
    piece[child >> 3]! |= 1 << (child & 7);
    piece.set(node.subarray(child * ID_BYTES, (child + 1) * ID_BYTES), end);
    end += ID_BYTES;
  }
  return piece.subarray(0, end);
}
