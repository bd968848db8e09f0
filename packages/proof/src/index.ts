/**
 * Proofs that a range of a disk holds what it holds: Merkle proofs under the disk's root.
 *
 * Nothing here knows stores, files or Node: whoever has a proof and the root checks it anywhere, also in a browser. The only
 * import is the hash, in its portable implementation.
 */
export { checkProof, type ProvenRange } from './check.ts';
export { heightOf, PROOF_RANGE_BYTES_MAX, ProofError, type ProofClaim } from './format.ts';
export { makeProof, type ProofSource } from './make.ts';
