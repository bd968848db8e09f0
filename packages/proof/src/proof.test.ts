import { blake3 } from '@noble/hashes/blake3.js';
import { describe, expect, test } from 'vitest';
import {
  checkProof,
  heightOf,
  makeProof,
  PROOF_RANGE_BYTES_MAX,
  ProofError,
  type ProofClaim,
  type ProofSource,
} from './index.ts';

const CHUNK = 4096;
const NODE = 4096;
const ID = 32;

/** A tree over some chunks of a disk, made the plain way. */
class Tree implements ProofSource {
  readonly #nodes = new Map<string, Uint8Array>();
  readonly #chunks = new Map<string, Uint8Array>();
  readonly rootId: Uint8Array;
  readonly sizeBytes: number;
  readonly height: number;

  /** @param contents by number of the chunk; all others are holes */
  constructor(sizeBytes: number, contents: ReadonlyMap<number, Uint8Array>) {
    this.sizeBytes = sizeBytes;
    this.height = heightOf(sizeBytes, CHUNK);
    let level = new Map<number, Uint8Array>();
    for (const [at, bytes] of contents) {
      const id = blake3(bytes);
      this.#chunks.set(hex(id), bytes);
      level.set(at, id);
    }
    for (let height = 0; height < this.height; height++) {
      const above = new Map<number, Uint8Array>();
      const nodes = new Map<number, Uint8Array>();
      for (const [at, id] of level) {
        const node = nodes.get(Math.floor(at / 128)) ?? new Uint8Array(NODE);
        node.set(id, (at % 128) * ID);
        nodes.set(Math.floor(at / 128), node);
      }
      for (const [at, node] of nodes) {
        const id = blake3(node);
        this.#nodes.set(hex(id), node);
        above.set(at, id);
      }
      level = above;
    }
    this.rootId = level.get(0) ?? new Uint8Array(ID);
  }

  node(ids: Uint8Array, at: number): Promise<Uint8Array> {
    return Promise.resolve(this.#nodes.get(hex(ids.subarray(at, at + ID)))!);
  }

  chunks(leaf: Uint8Array, first: number, count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count * CHUNK);
    for (let i = 0; i < count; i++) {
      const id = leaf.subarray((first + i) * ID, (first + i + 1) * ID);
      bytes.set(this.#chunks.get(hex(id)) ?? new Uint8Array(CHUNK), i * CHUNK);
    }
    return Promise.resolve(bytes);
  }

  claim(offset: number, length: number): ProofClaim {
    const { rootId, height, sizeBytes } = this;
    return { rootId, height, sizeBytes, chunkBytes: CHUNK, offset, length };
  }

  async prove(offset: number, length: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for await (const piece of makeProof(this.claim(offset, length), this)) pieces.push(piece);
    return join(pieces);
  }
}

function join(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** A generator that repeats: Lehmer, 31 bits. */
function seeded(seed: number): (below: number) => number {
  let state = (seed * 7919 + 1) % 2147483647;
  return (below) => {
    state = Number((BigInt(state) * 48271n) % 2147483647n);
    return state % below;
  };
}

function chunk(kind: number): Uint8Array {
  const below = seeded(kind + 1);
  return Uint8Array.from({ length: CHUNK }, () => below(256));
}

/** A disk of three levels and a part of a chunk, stored here and there. */
const SIZE = 130 * 128 * CHUNK + 512;
const contents = new Map([0, 1, 2, 5, 127, 128, 300, 128 * 128, 129 * 128 + 7].map((at) => [at, chunk(at)]));
const tree = new Tree(SIZE, contents);

/** What the disk holds, the plain way. */
function bytesAt(offset: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => {
    const at = offset + i;
    return contents.get(Math.floor(at / CHUNK))?.[at % CHUNK] ?? 0;
  });
}

describe('a proof', () => {
  test.each([
    [0, 1],
    [0, CHUNK],
    [CHUNK - 1, 2],
    [CHUNK * 3 - 5, CHUNK * 3 + 7],
    [CHUNK * 120, CHUNK * 20],
    [CHUNK * 10, CHUNK * 30],
    [CHUNK * 128 * 128 - 3, CHUNK + 9],
    [SIZE - 512, 512],
    [SIZE - 1, 1],
    [CHUNK * 128 * 129, CHUNK * 128],
  ])('of the range at %i with %i bytes gives exactly these bytes', async (offset, length) => {
    const proof = await tree.prove(offset, length);
    const proven = checkProof(proof);
    expect(proven).toMatchObject({ offset, length, sizeBytes: SIZE, chunkBytes: CHUNK, height: 3 });
    expect(hex(proven.rootId)).toBe(hex(tree.rootId));
    expect(Buffer.compare(proven.data, bytesAt(offset, length))).toBe(0);
    expect(proven.nodes).toBeGreaterThan(0);
  });

  test('of a hole is short, and of a disk that is all hole has nothing but its header', async () => {
    const hole = await tree.prove(CHUNK * 128 * 64, 1024 * 1024);
    expect(hole.length).toBe(80 + 2 * 16 + (2 + 3) * ID); // the top node and one below it
    expect(checkProof(hole)).toMatchObject({ chunks: 0, nodes: 2 });
    const empty = new Tree(SIZE, new Map());
    const proof = await empty.prove(0, 512);
    expect(proof.length).toBe(80);
    expect(checkProof(proof).data.every((byte) => byte === 0)).toBe(true);
  });

  test('of one level is of the smallest disks, too', async () => {
    const small = new Tree(512, new Map([[0, chunk(9)]]));
    expect(Buffer.compare(checkProof(await small.prove(0, 512)).data, chunk(9).subarray(0, 512))).toBe(0);
  });

  test('is not made of what is no range of the disk, or too long', async () => {
    for (const [offset, length] of [
      [0, 0],
      [-1, 1],
      [SIZE, 1],
      [SIZE - 1, 2],
      [0, PROOF_RANGE_BYTES_MAX + 1],
      [0.5, 1],
    ] as const) {
      await expect(tree.prove(offset, length)).rejects.toBeInstanceOf(ProofError);
    }
  });
});

describe('what is no proof is told', () => {
  test('whichever byte is changed', async () => {
    const proof = await tree.prove(CHUNK * 2 - 3, CHUNK * 4);
    const below = seeded(3);
    // Every byte of the header, and others all over.
    const places = [...Array(80).keys(), ...Array.from({ length: 120 }, () => 80 + below(proof.length - 80))];
    const before = checkProof(proof);
    for (const at of places) {
      const forged = proof.slice();
      forged[at]! ^= 1 << below(8);
      let proven;
      try {
        proven = checkProof(forged);
      } catch (error) {
        expect(error, `byte ${at}`).toBeInstanceOf(ProofError);
        continue;
      }
      // Another range of the chunks that are in it, or another size of the same height, is proven by the same pieces; nothing else is.
      expect(at >= 16 && at < 40, `byte ${at}`).toBe(true);
      expect(hex(proven.rootId)).toBe(hex(before.rootId));
      expect(Buffer.compare(proven.data, bytesAt(proven.offset, proven.length))).toBe(0);
    }
  });

  test('wherever it is cut, and with whatever behind it', async () => {
    const proof = await tree.prove(0, CHUNK * 3);
    const below = seeded(4);
    for (const length of [
      0,
      1,
      79,
      80,
      95,
      96,
      proof.length - 1,
      ...Array.from({ length: 60 }, () => below(proof.length)),
    ]) {
      expect(() => checkProof(proof.subarray(0, length)), `cut at ${length}`).toThrow(ProofError);
    }
    expect(() => checkProof(join([proof, Uint8Array.of(0)]))).toThrow('1 bytes too many');
    expect(() => checkProof(join([proof, chunk(1)]))).toThrow(ProofError);
  });

  test('with absurd numbers in its header, at no cost', async () => {
    const proof = await tree.prove(0, CHUNK);
    const absurd = [
      0n,
      1n,
      511n,
      2n ** 53n,
      2n ** 63n,
      2n ** 64n - 1n,
      2n ** 46n + 512n,
      BigInt(PROOF_RANGE_BYTES_MAX) + 1n,
    ];
    for (const value of absurd) {
      for (const at of [16, 24, 32]) {
        const forged = proof.slice();
        new DataView(forged.buffer).setBigUint64(at, value, true);
        try {
          const { data, offset, length } = checkProof(forged);
          expect(Buffer.compare(data, bytesAt(offset, length))).toBe(0);
        } catch (error) {
          expect(error).toBeInstanceOf(ProofError);
        }
      }
    }
    for (const value of [0, 1, 4095, 8192, 2 ** 20, 2 ** 31, 2 ** 32 - 1]) {
      for (const at of [8, 12, 40, 44]) {
        const forged = proof.slice();
        const view = new DataView(forged.buffer);
        if (view.getUint32(at, true) === value) continue;
        view.setUint32(at, value, true);
        expect(() => checkProof(forged), `${value} at ${at}`).toThrow(ProofError);
      }
    }
  });

  test('with pieces of another disk, in another order, or random ones', async () => {
    const other = new Tree(SIZE, new Map([...contents, [1, chunk(77)]]));
    const [proof, foreign] = [await tree.prove(0, CHUNK * 3), await other.prove(0, CHUNK * 3)];
    expect(() => checkProof(join([proof.subarray(0, 80), foreign.subarray(80)]))).toThrow(
      'the node at byte 0',
    );
    const swapped = proof.slice();
    const end = proof.length;
    swapped.set(proof.subarray(end - CHUNK, end), end - 2 * CHUNK);
    swapped.set(proof.subarray(end - 2 * CHUNK, end - CHUNK), end - CHUNK);
    expect(() => checkProof(swapped)).toThrow('the chunk at byte');
    const below = seeded(5);
    for (let i = 0; i < 200; i++) {
      const bytes = Uint8Array.from({ length: below(3000) }, () => below(256));
      if (i % 2 === 0) bytes.set(proof.subarray(0, Math.min(80, bytes.length)));
      expect(() => checkProof(bytes)).toThrow(ProofError);
    }
  });

  test('that names a hole as a child that is there', async () => {
    const proof = await tree.prove(0, 1);
    // The top node has 2 children: a third one that is zeros would make the same node.
    const forged = join([
      proof.subarray(0, 80 + 16 + 2 * ID),
      new Uint8Array(ID),
      proof.subarray(80 + 16 + 2 * ID),
    ]);
    forged[80]! |= 1 << 7;
    expect(() => checkProof(forged)).toThrow(ProofError);
    const forgedLast = join([
      proof.subarray(0, 80 + 16 + 2 * ID),
      new Uint8Array(ID),
      proof.subarray(80 + 16 + 2 * ID),
    ]);
    forgedLast[80 + 15]! |= 1 << 7;
    expect(() => checkProof(forgedLast)).toThrow('names a hole');
  });

  test('that calls nodes chunks: a root is its id and its size', async () => {
    // The leaf of the first chunks as a "chunk" of a disk that is 128 times smaller: only the size tells.
    const leafIds = await tree.node(tree.rootId, 0);
    const second = await tree.node(leafIds, 0);
    const fake = {
      rootId: tree.rootId,
      height: 2,
      sizeBytes: 128 * 128 * CHUNK,
      chunkBytes: CHUNK,
      offset: 0,
      length: CHUNK,
    };
    const source: ProofSource = { node: (ids, at) => tree.node(ids, at), chunks: () => tree.node(second, 0) };
    const pieces: Uint8Array[] = [];
    for await (const piece of makeProof(fake, source)) pieces.push(piece);
    const proven = checkProof(join(pieces));
    expect(proven.sizeBytes).not.toBe(SIZE);
    expect(Buffer.compare(proven.data, await tree.node(second, 0))).toBe(0);
  });
});
