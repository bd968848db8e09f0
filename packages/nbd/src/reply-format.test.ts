import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { DATA_CHUNK_BYTES, putErrorChunk, putReadReply } from './reply-format.ts';

const COOKIE = { cookieHigh: 0x01020304, cookieLow: 0x05060708 };

interface Chunk {
  readonly flags: number;
  readonly type: number;
  readonly payload: Buffer;
}

function parseChunks(bytes: Buffer): Chunk[] {
  const chunks: Chunk[] = [];
  for (let at = 0; at < bytes.length;) {
    expect(bytes.readUInt32BE(at)).toBe(0x668e33ef);
    expect(bytes.readBigUInt64BE(at + 8)).toBe(0x0102030405060708n);
    const length = bytes.readUInt32BE(at + 16);
    chunks.push({
      flags: bytes.readUInt16BE(at + 4),
      type: bytes.readUInt16BE(at + 6),
      payload: bytes.subarray(at + 20, at + 20 + length),
    });
    at += 20 + length;
  }
  return chunks;
}

/** Makes the reply of a read of `data` with these holes at some odd place of a buffer, and takes it apart again. */
function roundTrip(
  offset: number,
  data: Uint8Array,
  holes: readonly number[],
): { chunks: Chunk[]; read: Buffer; covered: number } {
  const at = 13;
  const buffer = Buffer.alloc(at + DATA_CHUNK_BYTES + data.length + 11, 0xcc);
  buffer.set(data, at + DATA_CHUNK_BYTES);
  const bytes = putReadReply(buffer, at, COOKIE, offset, data.length, holes);
  expect(bytes).toBeLessThanOrEqual(DATA_CHUNK_BYTES + data.length);
  expect(buffer.subarray(0, at)).toEqual(Buffer.alloc(at, 0xcc));
  expect(buffer.subarray(-11)).toEqual(Buffer.alloc(11, 0xcc));
  const chunks = parseChunks(buffer.subarray(at, at + bytes));
  const read = Buffer.alloc(data.length, 0xdd);
  let covered = 0;
  for (const { type, payload } of chunks) {
    const to = Number(payload.readBigUInt64BE(0)) - offset;
    const length = type === 1 ? payload.length - 8 : payload.readUInt32BE(8);
    expect(length).toBeGreaterThan(0);
    if (type === 1) payload.copy(read, to, 8);
    else read.fill(0, to, to + length);
    covered += length;
  }
  expect(chunks.map((chunk) => chunk.flags)).toEqual(chunks.map((_, i) => (i === chunks.length - 1 ? 1 : 0)));
  return { chunks, read, covered };
}

describe('structured replies of reads', () => {
  it('is one chunk of data when there are no holes', () => {
    const data = new SeededRandom(1).bytes(5_000);
    const { chunks, read } = roundTrip(2 ** 40 + 3, data, []);
    expect(chunks.map((chunk) => chunk.type)).toEqual([1]);
    expect(read.equals(data)).toBe(true);
  });

  it('is one hole when all of the range is one', () => {
    const { chunks, read } = roundTrip(77, new Uint8Array(4_096), [77, 4_096]);
    expect(chunks.map((chunk) => chunk.type)).toEqual([2]);
    expect(read.equals(Buffer.alloc(4_096))).toBe(true);
  });

  it('joins holes that touch and sends short ones as zeros', () => {
    const data = new Uint8Array(30_000).fill(9);
    data.fill(0, 100, 4_000);
    data.fill(0, 10_000, 15_000);
    const { chunks, read } = roundTrip(0, data, [100, 3_900, 10_000, 2_000, 12_000, 3_000]);
    expect(chunks.map((chunk) => chunk.type)).toEqual([1, 2, 1]);
    expect(read.equals(data)).toBe(true);
  });

  it('gives back every random mixture of data and holes, each byte once', () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    for (let run = 0; run < 300; run++) {
      const data = random.bytes(1 + random.below(100_000));
      const offset = random.below(2 ** 40);
      const holes: number[] = [];
      for (let at = random.below(9_000); at < data.length; at += 1 + random.below(20_000)) {
        const length = Math.min(data.length - at, 1 + random.below(12_000));
        data.fill(0, at, at + length);
        holes.push(offset + at, length);
        at += length;
      }
      const { read, covered } = roundTrip(offset, data, holes);
      expect(covered, `PANDO_TEST_SEED=${seed}, run ${run}`).toBe(data.length);
      expect(read.equals(data), `PANDO_TEST_SEED=${seed}, run ${run}`).toBe(true);
    }
  });
});

describe('error chunks', () => {
  it('carry number, length of the text and text', () => {
    const buffer = Buffer.alloc(100);
    const bytes = putErrorChunk(buffer, 0, COOKIE, 28, Buffer.from('völl'));
    const [chunk] = parseChunks(buffer.subarray(0, bytes));
    expect(chunk!.type).toBe(0x8001);
    expect(chunk!.flags).toBe(1);
    expect(chunk!.payload.readUInt32BE(0)).toBe(28);
    expect(chunk!.payload.readUInt16BE(4)).toBe(5);
    expect(chunk!.payload.toString('utf8', 6)).toBe('völl');
  });
});
