import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { putErrorChunk, putReadReply, putStatusChunk, statusChunkBytes } from './reply-format.ts';

const TO = { cookieHigh: 0x01020304, cookieLow: 0x05060708, offsetHigh: 0xfffffffe, offsetLow: 0x80000001 };
const STRUCTURED = 20;
const EXTENDED = 32;
const KINDS: [string, number][] = [
  ['structured', STRUCTURED],
  ['extended', EXTENDED],
];

interface Chunk {
  readonly flags: number;
  readonly type: number;
  readonly payload: Buffer;
}

function parseChunks(bytes: Buffer, headerBytes: number): Chunk[] {
  const chunks: Chunk[] = [];
  for (let at = 0; at < bytes.length;) {
    expect(bytes.readUInt32BE(at)).toBe(headerBytes === STRUCTURED ? 0x668e33ef : 0x6e8a278c);
    expect(bytes.readBigUInt64BE(at + 8)).toBe(0x0102030405060708n);
    if (headerBytes === EXTENDED) expect(bytes.readBigUInt64BE(at + 16)).toBe(0xfffffffe80000001n);
    const length =
      headerBytes === STRUCTURED ? bytes.readUInt32BE(at + 16) : Number(bytes.readBigUInt64BE(at + 24));
    chunks.push({
      flags: bytes.readUInt16BE(at + 4),
      type: bytes.readUInt16BE(at + 6),
      payload: bytes.subarray(at + headerBytes, at + headerBytes + length),
    });
    at += headerBytes + length;
  }
  return chunks;
}

/** Makes the reply of a read of `data` with these holes at some odd place of a buffer, and takes it apart again. */
function readReply(
  headerBytes: number,
  offset: number,
  data: Uint8Array,
  holes: readonly number[],
): { chunks: Chunk[]; read: Buffer; covered: number } {
  const at = 13;
  const dataAt = at + headerBytes + 8;
  const buffer = Buffer.alloc(dataAt + data.length + 11, 0xcc);
  buffer.set(data, dataAt);
  const bytes = putReadReply(buffer, at, headerBytes, TO, offset, data.length, holes);
  expect(bytes).toBeLessThanOrEqual(headerBytes + 8 + data.length);
  expect(buffer.subarray(0, at)).toEqual(Buffer.alloc(at, 0xcc));
  expect(buffer.subarray(-11)).toEqual(Buffer.alloc(11, 0xcc));
  const chunks = parseChunks(buffer.subarray(at, at + bytes), headerBytes);
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

describe.each(KINDS)('replies of reads, %s', (_, headerBytes) => {
  const roundTrip = readReply.bind(undefined, headerBytes);

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

describe.each(KINDS)('error chunks, %s', (_, headerBytes) => {
  it('carry number, length of the text and text', () => {
    const buffer = Buffer.alloc(100);
    const bytes = putErrorChunk(buffer, 0, headerBytes, TO, 28, Buffer.from('völl'));
    const [chunk] = parseChunks(buffer.subarray(0, bytes), headerBytes);
    expect(chunk).toMatchObject({ type: 0x8001, flags: 1 });
    expect(chunk!.payload.readUInt32BE(0)).toBe(28);
    expect(chunk!.payload.readUInt16BE(4)).toBe(5);
    expect(chunk!.payload.toString('utf8', 6)).toBe('völl');
  });

  it('carry the offset behind the text when the place is known', () => {
    const buffer = Buffer.alloc(100);
    const bytes = putErrorChunk(buffer, 3, headerBytes, TO, 5, Buffer.from('bad'), 2 ** 41 + 4096);
    const [chunk, ...rest] = parseChunks(buffer.subarray(3, 3 + bytes), headerBytes);
    expect(rest).toEqual([]);
    expect(chunk).toMatchObject({ type: 0x8002, flags: 1 });
    expect(chunk!.payload.length).toBe(14 + 3);
    expect(chunk!.payload.toString('utf8', 6, 9)).toBe('bad');
    expect(chunk!.payload.readBigUInt64BE(9)).toBe(2n ** 41n + 4096n);
  });
});

describe('status chunks', () => {
  it('have 32 bits for each number, structured', () => {
    const buffer = Buffer.alloc(100);
    const bytes = putStatusChunk(buffer, 5, STRUCTURED, TO, 1, 7, [0xffff_fe00, 512], [3, 0xffff_ffff]);
    expect(bytes).toBe(statusChunkBytes(STRUCTURED, 2));
    const [chunk] = parseChunks(buffer.subarray(5, 5 + bytes), STRUCTURED);
    expect(chunk).toMatchObject({ type: 5, flags: 1 });
    const words = [0, 4, 8, 12, 16].map((at) => chunk!.payload.readUInt32BE(at));
    expect(words).toEqual([7, 0xffff_fe00, 3, 512, 0xffff_ffff]);
  });

  it('have a count, and 64 bits for each number, extended', () => {
    const buffer = Buffer.alloc(100);
    const bytes = putStatusChunk(buffer, 5, EXTENDED, TO, 0, 7, [2 ** 45, 512], [3, 0xffff_ffff]);
    expect(bytes).toBe(statusChunkBytes(EXTENDED, 2));
    const [chunk] = parseChunks(buffer.subarray(5, 5 + bytes), EXTENDED);
    expect(chunk).toMatchObject({ type: 6, flags: 0 });
    expect(chunk!.payload.readUInt32BE(0)).toBe(7);
    expect(chunk!.payload.readUInt32BE(4)).toBe(2);
    const words = [8, 16, 24, 32].map((at) => chunk!.payload.readBigUInt64BE(at));
    expect(words).toEqual([2n ** 45n, 3n, 512n, 0xffff_ffffn]);
  });
});
