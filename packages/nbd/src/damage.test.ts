import { MemoryBlockDevice } from '@pando/block-device';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { PandoError } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import { findDamage } from './damage.ts';
import { TestServer } from './testing/test-server.ts';

const BLOCK = 4_096;
const READ = 0;

/** Reads that touch one of the bad blocks fail, at once or later; counts them all. */
class DamagedDevice extends MemoryBlockDevice {
  readonly bad = new Set<number>();
  later = false;
  reads = 0;
  bytesRead = 0;
  /** Reads after this many find nothing wrong any more. */
  healsAfter = Infinity;
  code: 'chunk-corrupt' | 'store-failed' = 'chunk-corrupt';

  override read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    this.reads++;
    this.bytesRead += length;
    if (this.reads <= this.healsAfter) {
      for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + length; block++) {
        if (!this.bad.has(block)) continue;
        const error = new PandoError(this.code, `block ${block}`);
        if (this.later) return Promise.reject(error);
        throw error;
      }
    }
    return super.read(offset, length, target, targetOffset, holes);
  }
}

const damaged = (...bad: number[]): DamagedDevice => {
  const device = new DamagedDevice({ size: 2 ** 20 });
  for (const block of bad) device.bad.add(block);
  return device;
};

describe('finding damage', () => {
  const scratch = new Uint8Array(2 ** 20);

  it('names the first bad block of any range, in few reads', async () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    for (let run = 0; run < 300; run++) {
      const device = damaged(...Array.from({ length: 1 + random.below(4) }, () => random.below(256)));
      const offset = random.below(2 ** 20);
      const length = 1 + random.below(2 ** 20 - offset);
      const touched = [...device.bad].filter(
        (block) => (block + 1) * BLOCK > offset && block * BLOCK < offset + length,
      );
      const first = touched.length === 0 ? undefined : Math.max(offset, Math.min(...touched) * BLOCK);
      const what = `PANDO_TEST_SEED=${seed}, run ${run}`;
      expect(await findDamage(device, offset, length, scratch, 0), what).toBe(first);
      expect(device.reads, what).toBeLessThanOrEqual(10);
      expect(device.bytesRead, what).toBeLessThanOrEqual(2 * length + BLOCK);
    }
  });

  it('passes on what is no damage', async () => {
    const device = damaged(3);
    device.code = 'store-failed';
    await expect(findDamage(device, 0, 2 ** 16, scratch, 0)).rejects.toMatchObject({ code: 'store-failed' });
  });
});

describe('a READ that meets damage', () => {
  let bench: TestServer | undefined;

  afterEach(async () => {
    await bench?.stop();
    bench = undefined;
  });

  for (const later of [false, true]) {
    const when = later ? 'later' : 'at once';
    for (const kind of ['structured', 'extended'] as const) {
      it(`gets EIO with the offset of the first bad block (${kind} replies, ${when})`, async () => {
        const device = damaged(7, 9);
        device.later = later;
        bench = await TestServer.start({ device });
        const client = bench.connect();
        await client.open('disk', { [kind]: true });
        const place = async (offset: number, length: number, flags = 0): Promise<bigint> => {
          client.request({ type: READ, flags, offset, length, cookie: 5 });
          const reply = await client.readReply();
          expect(reply).toMatchObject({ type: 0x8002, flags: 1, errno: 5, cookie: 5 });
          const textBytes = reply.payload.readUInt16BE(4);
          expect(reply.payload.toString('utf8', 6, 6 + textBytes)).toContain('chunk-corrupt');
          expect(reply.payload).toHaveLength(14 + textBytes);
          return reply.payload.readBigUInt64BE(6 + textBytes);
        };
        expect(await place(0, 2 ** 20)).toBe(BigInt(7 * BLOCK));
        expect(await place(100, 2 ** 19, 4)).toBe(BigInt(7 * BLOCK));
        expect(await place(7 * BLOCK + 5, 3)).toBe(BigInt(7 * BLOCK + 5));
        expect(await place(8 * BLOCK, 5 * BLOCK)).toBe(BigInt(9 * BLOCK));
        // The rest of the disk is fine, and no buffer was lost on the way.
        client.request({ type: READ, offset: 10 * BLOCK, length: 100_000, flags: 4 });
        expect(await client.readReply()).toMatchObject({ type: 1, errno: 0 });
        expect(bench.server.stats().requestsInFlight).toBe(0);
      });
    }

    it(`gets a plain EIO when the damage is gone on looking again, or with simple replies (${when})`, async () => {
      const device = damaged(7);
      device.later = later;
      device.healsAfter = 1;
      bench = await TestServer.start({ device });
      const client = bench.connect();
      await client.open('disk', { structured: true });
      client.request({ type: READ, length: 2 ** 20 });
      expect(await client.readReply()).toMatchObject({ type: 0x8001, errno: 5 });
      device.healsAfter = Infinity;
      const simple = bench.connect();
      await simple.open('disk');
      const before = device.reads;
      simple.request({ type: READ, length: 2 ** 20 });
      expect(await simple.readReply()).toMatchObject({ structured: false, errno: 5 });
      expect(device.reads).toBe(before + 1);
    });
  }
});
