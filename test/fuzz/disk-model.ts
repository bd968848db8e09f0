/**
 * The oracle: what a disk must hold after the requests that were sent to it.
 *
 * Requests of one batch were under way at the same time, and NBD gives them no order: bytes that two of them touched
 * are unknown until somebody reads them, and so are bytes of writes that were never answered. A read must agree
 * with every byte that is known; what it shows of unknown ones is what they are from then on.
 */

const BLOCK_BYTES = 4096;

export interface Mutation {
  readonly from: number;
  readonly to: number;
  /** Undefined: the range became zeros. */
  readonly data: Uint8Array | undefined;
  /** Whether it surely happened; else it may or may not have. */
  readonly sure: boolean;
}

export interface ReadResult {
  readonly from: number;
  readonly data: Uint8Array;
}

/** A range that block status says reads as zeros. */
export interface ZeroClaim {
  readonly from: number;
  readonly to: number;
}

export class Batch {
  readonly mutations: Mutation[] = [];
  readonly reads: ReadResult[] = [];
  readonly zeroClaims: ZeroClaim[] = [];
}

interface Block {
  readonly bytes: Buffer;
  /** One byte for each: whether it is known. Undefined: all are. */
  known: Uint8Array | undefined;
}

export class DiskModel {
  /** Blocks that are not here hold zeros, known to. */
  readonly #blocks = new Map<number, Block>();
  /** Bytes that reads were compared with. */
  comparedBytes = 0;

  /** Compares what the batch has read, then applies what it has changed. @throws Error where a read is wrong */
  settle(batch: Batch): void {
    const { mutations } = batch;
    for (const read of batch.reads) {
      for (const [from, to] of without(read.from, read.from + read.data.length, mutations))
        this.#compare(read, from, to);
    }
    for (const claim of batch.zeroClaims) {
      for (const [from, to] of without(claim.from, claim.to, mutations)) this.#expectZeros(from, to);
    }
    for (const mutation of mutations) this.#apply(mutation);
    for (let i = 1; i < mutations.length; i++) {
      for (let j = 0; j < i; j++) {
        const a = mutations[i]!;
        const b = mutations[j]!;
        const from = Math.max(a.from, b.from);
        const to = Math.min(a.to, b.to);
        if (from >= to || (a.data === undefined && b.data === undefined)) continue;
        // Also where the block is gone by now: the write may have been the later one.
        this.#eachPiece(from, to, (index, start, end) => forget(this.#blockAt(index), start, end));
      }
    }
  }

  #compare(read: ReadResult, from: number, to: number): void {
    const zeros = ZEROS;
    this.comparedBytes += to - from;
    this.#eachPiece(from, to, (index, start, end) => {
      const at = index * BLOCK_BYTES + start - read.from;
      const data = read.data.subarray(at, at + (end - start));
      const block = this.#blocks.get(index);
      if (block === undefined) {
        if (zeros.compare(data, 0, data.length, 0, data.length) !== 0) {
          throw new Error(
            `zeros were expected at ${firstDifference(data, zeros, index * BLOCK_BYTES + start)}`,
          );
        }
        return;
      }
      const { bytes, known } = block;
      if (known === undefined) {
        if (bytes.compare(data, 0, data.length, start, end) !== 0) {
          throw new Error(
            `wrong data at ${firstDifference(data, bytes.subarray(start), index * BLOCK_BYTES + start)}`,
          );
        }
        return;
      }
      for (let i = start; i < end; i++) {
        if (known[i] === 0) {
          bytes[i] = data[i - start]!;
          known[i] = 1;
        } else if (bytes[i] !== data[i - start]) {
          throw new Error(`wrong data at ${index * BLOCK_BYTES + i}: ${data[i - start]}, not ${bytes[i]}`);
        }
      }
      if (!known.includes(0)) block.known = undefined;
    });
  }

  #expectZeros(from: number, to: number): void {
    this.#eachBlock(from, to, (block, start, end, index) => {
      for (let i = start; i < end; i++) {
        if (block.bytes[i] !== 0 && (block.known === undefined || block.known[i] !== 0)) {
          throw new Error(`block status calls byte ${index * BLOCK_BYTES + i} zero, and it is not`);
        }
      }
    });
  }

  #apply(mutation: Mutation): void {
    const { from, to, data } = mutation;
    if (!mutation.sure) {
      // Zeros that are not stored here stay zeros.
      if (data === undefined) this.#eachBlock(from, to, forget);
      else this.#eachPiece(from, to, (index, start, end) => forget(this.#blockAt(index), start, end));
      return;
    }
    if (data === undefined) {
      this.#eachBlock(from, to, (block, start, end, index) => {
        if (end - start === BLOCK_BYTES) {
          this.#blocks.delete(index);
          return;
        }
        block.bytes.fill(0, start, end);
        block.known?.fill(1, start, end);
      });
      return;
    }
    this.#eachPiece(from, to, (index, start, end) => {
      const block = this.#blockAt(index);
      const at = index * BLOCK_BYTES + start - from;
      block.bytes.set(data.subarray(at, at + (end - start)), start);
      block.known?.fill(1, start, end);
    });
  }

  #blockAt(index: number): Block {
    let block = this.#blocks.get(index);
    if (block === undefined) {
      block = { bytes: Buffer.alloc(BLOCK_BYTES), known: undefined };
      this.#blocks.set(index, block);
    }
    return block;
  }

  #eachPiece(from: number, to: number, visit: (index: number, start: number, end: number) => void): void {
    for (let at = from; at < to;) {
      const index = Math.floor(at / BLOCK_BYTES);
      const start = at - index * BLOCK_BYTES;
      const end = Math.min(BLOCK_BYTES, to - index * BLOCK_BYTES);
      visit(index, start, end);
      at = (index + 1) * BLOCK_BYTES;
    }
  }

  /** Blocks that are here, in a range of any length. */
  #eachBlock(
    from: number,
    to: number,
    visit: (block: Block, start: number, end: number, index: number) => void,
  ): void {
    if (to - from > this.#blocks.size * BLOCK_BYTES) {
      for (const [index, block] of this.#blocks) {
        const start = Math.max(0, from - index * BLOCK_BYTES);
        const end = Math.min(BLOCK_BYTES, to - index * BLOCK_BYTES);
        if (start < end) visit(block, start, end, index);
      }
      return;
    }
    this.#eachPiece(from, to, (index, start, end) => {
      const block = this.#blocks.get(index);
      if (block !== undefined) visit(block, start, end, index);
    });
  }
}

const ZEROS = Buffer.alloc(BLOCK_BYTES);

function forget(block: Block, start: number, end: number): void {
  block.known ??= new Uint8Array(BLOCK_BYTES).fill(1);
  block.known.fill(0, start, end);
}

function firstDifference(data: Uint8Array, expected: Uint8Array, offset: number): string {
  const i = data.findIndex((byte, at) => byte !== expected[at]);
  return `${offset + i}: ${data[i]}, not ${expected[i]}`;
}

/** The parts of a range that no mutation touches. */
function without(from: number, to: number, mutations: readonly Mutation[]): [number, number][] {
  let parts: [number, number][] = [[from, to]];
  for (const mutation of mutations) {
    if (mutation.to <= from || mutation.from >= to) continue;
    const next: [number, number][] = [];
    for (const [a, b] of parts) {
      if (a < Math.min(b, mutation.from)) next.push([a, Math.min(b, mutation.from)]);
      if (Math.max(a, mutation.to) < b) next.push([Math.max(a, mutation.to), b]);
    }
    parts = next;
  }
  return parts;
}
