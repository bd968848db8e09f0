import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataRanges, parseRanges } from './data-ranges.ts';
import { openSparseFile, splitZeros } from './sparse-file.ts';
import {
  decodeSparse,
  decodeSparseIds,
  encodeSparse,
  frameHeader,
  IDS_FRAME_MAX,
  idsFrameHeader,
  type DiskPart,
} from './sparse-stream.ts';

async function* each<T>(items: Iterable<T>): AsyncGenerator<T> {
  for (const item of items) yield await Promise.resolve(item);
}

async function gather(parts: AsyncIterable<DiskPart>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const part of parts)
    all.push(part instanceof Uint8Array ? Buffer.from(part) : Buffer.alloc(part.holeBytes));
  return Buffer.concat(all);
}

async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const part of stream) all.push(part);
  return Buffer.concat(all);
}

describe('the sparse stream', () => {
  const data = Buffer.alloc(2_500_001, 7);
  const parts: DiskPart[] = [
    { holeBytes: 5 },
    data,
    { holeBytes: 10_000_000 },
    Buffer.from('x'),
    { holeBytes: 3 },
  ];
  const disk = Buffer.concat(
    parts.map((part) => (part instanceof Uint8Array ? part : Buffer.alloc(part.holeBytes))),
  );

  test.each([1, 7, 12, 13, 65_536, 1 << 24])(
    'comes back whole when it arrives in pieces of %d bytes',
    async (step) => {
      const small: DiskPart[] = [
        { holeBytes: 5 },
        Buffer.from('hello'),
        { holeBytes: 70 },
        Buffer.from('!'),
        { holeBytes: 1 },
      ];
      const using = step < 100 ? small : parts;
      const stream = await bytesOf(encodeSparse(each(using)));
      const pieces: Buffer[] = [];
      for (let at = 0; at < stream.byteLength; at += step) pieces.push(stream.subarray(at, at + step));
      const whole = await gather(decodeSparse(each(pieces)));
      expect(whole.equals(step < 100 ? await gather(each(small)) : disk)).toBe(true);
    },
  );

  test('may have chunks by their ids, which come a frame at a time', async () => {
    const ids = Buffer.alloc(3 * 32, 9);
    const stream = Buffer.concat([
      idsFrameHeader(4096, 3),
      ids,
      frameHeader(5 * 4096, 2),
      Buffer.from('hi'),
      frameHeader(6 * 4096, 0),
    ]);
    for (const step of [1, 7, 50, 1000]) {
      const pieces: Buffer[] = [];
      for (let at = 0; at < stream.byteLength; at += step) pieces.push(stream.subarray(at, at + step));
      const found: unknown[] = [];
      for await (const part of decodeSparseIds(each(pieces), 4096)) {
        if (part instanceof Uint8Array) found.push(Buffer.from(part).toString());
        else found.push('ids' in part ? Buffer.from(part.ids) : part.holeBytes);
      }
      const hi = step === 1 ? ['h', 'i'] : ['hi'];
      if (step === 7 || step === 50) expect(found.slice(0, 3)).toEqual([4096, ids, 4096]);
      else expect(found).toEqual([4096, ids, 4096, ...hi, 4094]);
    }
    await expect(gather(decodeSparse(each([stream])))).rejects.toMatchObject({ code: 'stream-invalid' });
    const tooMany = Buffer.concat([idsFrameHeader(0, IDS_FRAME_MAX + 1), ids]);
    const none = idsFrameHeader(0, 0);
    for (const wrong of [tooMany, none]) {
      const read = decodeSparseIds(each([wrong]), 4096);
      await expect(read.next()).rejects.toMatchObject({ code: 'stream-invalid' });
    }
    const cut = decodeSparseIds(each([stream.subarray(0, 60)]), 4096);
    expect((await cut.next()).value).toEqual({ holeBytes: 4096 });
    await expect(cut.next()).rejects.toMatchObject({ code: 'import-interrupted' });
  });

  test('costs twelve bytes a frame and nothing for holes', async () => {
    const stream = await bytesOf(
      encodeSparse(each<DiskPart>([{ holeBytes: 2 ** 40 }, Buffer.from('abc'), { holeBytes: 2 ** 40 }])),
    );
    expect(stream.byteLength).toBe(12 + 3 + 12);
    expect(stream.readBigUInt64BE(15)).toBe(2n ** 41n + 3n);
  });

  test.each([0, 1, 11, 14])('is recognised as cut after %d bytes', async (length) => {
    const stream = await bytesOf(encodeSparse(each<DiskPart>([Buffer.from('abc')])));
    const cut = gather(decodeSparse(each([stream.subarray(0, length)])));
    await expect(cut).rejects.toMatchObject({ code: 'import-interrupted' });
  });

  test('refuses frames that go back, frames that are too long, offsets past what a number holds, and bytes after the end', async () => {
    const frame = (offset: bigint, length: number): Buffer => {
      const bytes = Buffer.alloc(12);
      bytes.writeBigUInt64BE(offset);
      bytes.writeUInt32BE(length, 8);
      return bytes;
    };
    const wrong = [
      [frame(0n, 3), Buffer.from('abc'), frame(2n, 0)],
      [frame(0n, 2 ** 20 + 1)],
      [frame(2n ** 63n, 0)],
      [frame(3n, 0), Buffer.from('x')],
    ];
    for (const stream of wrong) {
      await expect(gather(decodeSparse(each(stream)))).rejects.toMatchObject({ code: 'stream-invalid' });
    }
  });
});

test.each([0, 1, 65_535, 65_536, 65_537, 200_000])(
  'zeros of %d bytes between data are split off only when they are long',
  (zeros) => {
    const piece = Buffer.concat([Buffer.alloc(65_536, 1), Buffer.alloc(zeros), Buffer.alloc(1000, 2)]);
    const parts = [...splitZeros(piece)];
    const whole = Buffer.concat(
      parts.map((part) => (part instanceof Uint8Array ? part : Buffer.alloc(part.holeBytes))),
    );
    expect(whole.equals(piece)).toBe(true);
    expect(parts.some((part) => !(part instanceof Uint8Array))).toBe(zeros >= 65_536);
  },
);

test('an answer that is incomplete or out of order is no map', () => {
  expect(parseRanges('0 4096\n8192 12288\nend\n', 20_000)).toEqual([
    [0, 4096],
    [8192, 12_288],
  ]);
  expect(parseRanges('end\n', 20_000)).toEqual([]);
  expect(parseRanges('0 4096\n8192 99999\nend', 20_000)).toEqual([
    [0, 4096],
    [8192, 20_000],
  ]);
  for (const wrong of [
    '',
    '0 4096\n',
    '0 4096\nfailed\n',
    '8192 9000\n0 4096\nend\n',
    'x\nend\n',
    '5 5\nend\n',
  ]) {
    expect(parseRanges(wrong, 20_000)).toBeUndefined();
  }
});

describe('a sparse file', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pando-common-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('reads back byte for byte, and its holes are not read where the system can tell them', async () => {
    const path = join(folder, 'sparse');
    const file = await open(path, 'w');
    await file.truncate(50_000_001);
    await file.write(Buffer.alloc(5000, 1), 0, 5000, 20_000_000);
    await file.write(Buffer.alloc(1, 2), 0, 1, 50_000_000);
    await file.close();
    const sparse = await openSparseFile(path);
    const ranges = await dataRanges(sparse.handle.fd, sparse.sizeBytes);
    const parts: DiskPart[] = [];
    for await (const part of sparse.parts())
      parts.push(part instanceof Uint8Array ? Buffer.from(part) : part);
    await sparse.close();
    expect(sparse.sizeBytes).toBe(50_000_001);
    const whole = await gather(each(parts));
    expect(whole.byteLength).toBe(50_000_001);
    expect(whole.subarray(20_000_000, 20_005_000).every((byte) => byte === 1)).toBe(true);
    expect(whole[50_000_000]).toBe(2);
    expect(whole.reduce((sum, byte) => sum + byte, 0)).toBe(5002);
    if (ranges !== undefined) {
      const mapped = ranges.reduce((sum, [start, end]) => sum + end - start, 0);
      expect(mapped).toBeLessThan(1_000_000);
    }
  });

  test('that is a folder, a pipe, a device or missing is refused at once', async () => {
    const { execFileSync } = await import('node:child_process');
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    for (const path of [folder, join(folder, 'pipe'), '/dev/null', join(folder, 'missing')]) {
      await expect(openSparseFile(path)).rejects.toMatchObject({ code: 'import-not-a-file' });
    }
  });

  test('that shrinks while it is read fails the reading', async () => {
    const path = join(folder, 'shrinking');
    await writeFile(path, Buffer.alloc(5_000_000, 3));
    const sparse = await openSparseFile(path);
    const parts = sparse.parts();
    await parts.next();
    await writeFile(path, '');
    await expect(gather(parts)).rejects.toMatchObject({ code: 'import-interrupted' });
    await sparse.close();
  });
});
