import { hashChunk } from '@pando/chunk-store/hashing';
import { decodeSparseIds, ID_BYTES, idToHex, isHole, type DiskPart } from '@pando/common';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { expect, test } from 'vitest';
import { encodeKnown, WINDOW_CHUNKS } from './known-chunks.ts';

const CHUNK = 4096;

/** A server that has some chunks; counts what it is asked, and what comes as bytes. */
class Server {
  readonly chunks = new Map<string, Buffer>();
  asked = 0;
  bytes = 0;
  idChunks = 0;

  store(bytes: Uint8Array): void {
    for (let at = 0; at + CHUNK <= bytes.byteLength; at += CHUNK) {
      const chunk = Buffer.from(bytes.subarray(at, at + CHUNK));
      this.chunks.set(idToHex(hashChunk(chunk)), chunk);
    }
  }

  lookUp = async (ids: Uint8Array): Promise<Uint8Array> => {
    const count = ids.byteLength / ID_BYTES;
    this.asked += count;
    return Uint8Array.from({ length: count }, (_, i) =>
      isHole(ids, i * ID_BYTES) || this.chunks.has(idToHex(ids, i * ID_BYTES)) ? 1 : 0,
    );
  };

  async take(parts: readonly DiskPart[]): Promise<Buffer> {
    const disk: Buffer[] = [];
    for await (const part of decodeSparseIds(encodeKnown(each(parts), CHUNK, this.lookUp), CHUNK)) {
      if (part instanceof Uint8Array) {
        this.bytes += part.byteLength;
        disk.push(Buffer.from(part));
      } else if ('ids' in part) {
        for (let at = 0; at < part.ids.byteLength; at += ID_BYTES) {
          this.idChunks++;
          disk.push(isHole(part.ids, at) ? Buffer.alloc(CHUNK) : this.chunks.get(idToHex(part.ids, at))!);
        }
      } else disk.push(Buffer.alloc(part.holeBytes));
    }
    return Buffer.concat(disk);
  }
}

/** As a source hands its parts out: each buffer is used again once the next one was asked for. */
async function* each(parts: readonly DiskPart[]): AsyncGenerator<DiskPart> {
  for (const part of parts) {
    if (!(part instanceof Uint8Array)) yield part;
    else {
      const lent = Buffer.from(part);
      yield lent;
      lent.fill(0xee);
    }
  }
}

const flat = (parts: readonly DiskPart[]): Buffer =>
  Buffer.concat(parts.map((part) => (part instanceof Uint8Array ? part : Buffer.alloc(part.holeBytes))));

test('whatever the server has, and however the disk comes in parts, it is the same disk', async () => {
  const random = seededRandom(runSeed());
  for (let round = 0; round < 40; round++) {
    const parts: DiskPart[] = [];
    for (let left = between(random, 1, 12); left > 0; left--) {
      const isAligned = random() < 0.6;
      const bytes = between(random, 1, 40) * (isAligned ? CHUNK : 509);
      if (random() < 0.3) parts.push({ holeBytes: bytes * between(random, 1, 30) });
      else parts.push(random() < 0.1 ? Buffer.alloc(bytes) : fillRandom(random, Buffer.alloc(bytes)));
    }
    const disk = flat(parts);
    const server = new Server();
    for (let at = 0; at < disk.byteLength; at += between(random, 1, 60) * CHUNK) {
      const from = at - (at % CHUNK);
      if (random() < 0.6) server.store(disk.subarray(from, from + between(random, 1, 60) * CHUNK));
    }
    expect((await server.take(parts)).equals(disk), `round ${round}`).toBe(true);
  }
});

test('what the server has is not sent', async () => {
  const disk = fillRandom(seededRandom(5), Buffer.alloc((2 * WINDOW_CHUNKS + 300) * CHUNK + 512));
  const server = new Server();
  server.store(disk);
  const parts = [disk.subarray(0, 777), { holeBytes: 2 ** 20 }, disk];
  const whole = flat(parts);
  server.store(whole);
  expect((await server.take(parts)).equals(whole)).toBe(true);
  expect(server.bytes).toBe(whole.byteLength % CHUNK);
});

test('a server that has nothing is asked about ever less', async () => {
  const windows = 40;
  const disk = fillRandom(seededRandom(6), Buffer.alloc(64 * CHUNK));
  const parts = Array.from({ length: (windows * WINDOW_CHUNKS) / 64 }, () => disk);
  const server = new Server();
  let bytes = 0;
  for await (const piece of encodeKnown(each(parts), CHUNK, server.lookUp)) bytes += piece.byteLength;
  expect(bytes).toBeGreaterThan(windows * WINDOW_CHUNKS * CHUNK);
  expect(server.asked).toBeLessThan((windows / 3) * WINDOW_CHUNKS);
});

test('a look-up that fails ends it', async () => {
  const failing = encodeKnown(each([Buffer.alloc(CHUNK, 1)]), CHUNK, () =>
    Promise.reject(new Error('no server')),
  );
  await expect(failing.next()).rejects.toThrow('no server');
});
