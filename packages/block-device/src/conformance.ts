/**
 * The suite that every BlockDevice passes: in memory, volumes, and any of them through NBD.
 *
 * It takes a factory and what the implementation can do; what an implementation cannot do is left out by
 * name, not silently. Data is pseudo-random; a failing model run prints its seed
 * (`PANDO_TEST_SEED=<seed>` replays it).
 */
import { PandoError } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import { SeededRandom, testSeed } from './seeded-random.ts';
import type { BlockDevice } from './types.ts';

export interface BlockDeviceFactory {
  /** A fresh device full of zeros. */
  create(size: number): Promise<BlockDevice>;
  /** A second handle on the same device; absent when there can be only one. */
  openAnother?(device: BlockDevice): Promise<BlockDevice>;
  /** A read-only handle on a device of `size` zeros; absent when the implementation has none. */
  createReadOnly?(size: number): Promise<BlockDevice>;
  /** Called after every test: releases what the test created. */
  cleanUp?(): Promise<void>;
}

export interface BlockDeviceCapabilities {
  /** Zeroed whole blocks and blocks never written are reported as holes, by `read` and `allocation`. */
  readonly reportsHoles: boolean;
  /** Sizes are multiples of this; default 1. */
  readonly sizeMultiple?: number;
  /** Operations of the model test; default 400. */
  readonly modelOperations?: number;
}

export function testBlockDevice(
  name: string,
  factory: BlockDeviceFactory,
  capabilities: BlockDeviceCapabilities,
): void {
  const { reportsHoles, sizeMultiple = 1, modelOperations = 400 } = capabilities;
  const fit = (size: number): number => Math.ceil(size / sizeMultiple) * sizeMultiple;

  describe(`block device conformance: ${name}`, () => {
    afterEach(async () => {
      await factory.cleanUp?.();
    });

    it('has the size that was asked for and a power of two as preferred grain', async () => {
      const device = await factory.create(fit(100_001));
      expect(device.size).toBe(fit(100_001));
      expect(device.readOnly).toBe(false);
      expect(Math.log2(device.blockBytes) % 1).toBe(0);
    });

    it('reads zeros where nothing was written, whatever the target held', async () => {
      const device = await factory.create(fit(20_003));
      expect(await bytesOf(device, 0, device.size)).toEqual(new Uint8Array(device.size));
    });

    it('touches nothing of the target outside the range that was asked for', async () => {
      const device = await factory.create(fit(9_000));
      await device.write(0, new Uint8Array(9_000).fill(7));
      const target = new Uint8Array(300).fill(0xee);
      await device.read(4_000, 200, target, 50);
      expect(target.subarray(0, 50)).toEqual(new Uint8Array(50).fill(0xee));
      expect(target.subarray(50, 250)).toEqual(new Uint8Array(200).fill(7));
      expect(target.subarray(250)).toEqual(new Uint8Array(50).fill(0xee));
    });

    it('reads back what was written at odd offsets and of odd lengths', async () => {
      const device = await factory.create(fit(70_000));
      const random = new SeededRandom(1);
      const grain = device.blockBytes;
      for (const offset of [0, 1, grain - 1, grain, grain + 1, 3 * grain - 7]) {
        for (const length of [1, 2, 511, grain - 1, grain, grain + 1, 2 * grain + 3]) {
          if (offset + length > device.size) continue;
          const data = random.bytes(length);
          await device.write(offset, data);
          expect(await bytesOf(device, offset, length)).toEqual(data);
        }
      }
    });

    it('keeps the neighbours of a write as they were', async () => {
      const device = await factory.create(fit(16_384));
      const before = new SeededRandom(2).bytes(16_384);
      await device.write(0, before);
      await device.write(5_000, new Uint8Array(13).fill(0xaa));
      const expected = before.slice();
      expected.fill(0xaa, 5_000, 5_013);
      expect(await bytesOf(device, 0, 16_384)).toEqual(expected);
    });

    it('reads and writes the very last byte', async () => {
      const device = await factory.create(fit(12_289));
      await device.write(device.size - 1, Uint8Array.of(0x42));
      expect(await bytesOf(device, device.size - 1, 1)).toEqual(Uint8Array.of(0x42));
    });

    it('takes operations of no bytes, also at the end of the device', async () => {
      const device = await factory.create(fit(5_000));
      for (const offset of [0, 17, device.size]) {
        await device.read(offset, 0, new Uint8Array(0), 0);
        await device.write(offset, new Uint8Array(0));
        await device.zero(offset, 0);
        await device.prefetch(offset, 0);
      }
      expect(await bytesOf(device, 0, 100)).toEqual(new Uint8Array(100));
    });

    it('has copied the data of a write when the call returns', async () => {
      const device = await factory.create(fit(50_000));
      // Of a Buffer too, whose `slice` is a view.
      for (const data of [
        new Uint8Array(20_000),
        Buffer.alloc(20_000),
        Buffer.alloc(30_000).subarray(5_000, 25_000),
      ]) {
        data.fill(1);
        const written = device.write(100, data);
        data.fill(2);
        await written;
        expect(await bytesOf(device, 100, 20_000)).toEqual(new Uint8Array(20_000).fill(1));
      }
    });

    it('reads zeros after zeroing, and keeps what lies beside the range', async () => {
      const grain = (await factory.create(fit(4_096))).blockBytes;
      const size = fit(grain * 6);
      const ranges = [
        [0, 1],
        [grain, grain],
        [grain - 1, grain + 2],
        [grain + 5, 10],
        [2 * grain + 1, 2 * grain],
        [0, size],
      ] as const;
      for (const [offset, length] of ranges) {
        const device = await factory.create(size);
        const expected = new SeededRandom(3).bytes(size);
        await device.write(0, expected);
        await device.zero(offset, length);
        expected.fill(0, offset, offset + length);
        expect(await bytesOf(device, 0, size)).toEqual(expected);
      }
    });

    it('can be written to again where it was zeroed', async () => {
      const device = await factory.create(fit(30_000));
      await device.write(0, new Uint8Array(30_000).fill(9));
      await device.zero(0, 30_000);
      await device.write(12_345, Uint8Array.of(1, 2, 3));
      const expected = new Uint8Array(30_000);
      expected.set([1, 2, 3], 12_345);
      expect(await bytesOf(device, 0, 30_000)).toEqual(expected);
    });

    it('zeroes and describes a device of 8 TiB without walking through it', async () => {
      const size = 8 * 2 ** 40;
      const device = await factory.create(size);
      await device.write(size - 4_096, new Uint8Array(4_096).fill(5));
      await device.zero(0, size);
      expect(await bytesOf(device, size - 4_096, 4_096)).toEqual(new Uint8Array(4_096));
      const extents = await device.allocation(0, size, 16);
      expect(extents.lengths.length).toBeGreaterThan(0);
      if (reportsHoles) expect(extents.holes[0]).toBe(true);
    });

    it('appends holes of a read as ascending pairs inside the request that read as zeros', async () => {
      const device = await factory.create(fit(1_000_000));
      const grain = device.blockBytes;
      await device.write(2 * grain, new Uint8Array(grain).fill(1));
      await device.write(5 * grain + 1, Uint8Array.of(1));
      const from = grain - 3;
      const length = 7 * grain;
      const target = new Uint8Array(length).fill(0xff);
      const holes = [123, 456];
      await device.read(from, length, target, 0, holes);
      expect(holes.slice(0, 2)).toEqual([123, 456]);
      const pairs = pairsOf(holes.slice(2));
      checkPairs(pairs, from, length, target);
      if (reportsHoles) {
        const holeBytes = pairs.reduce((sum, pair) => sum + pair.length, 0);
        expect(holeBytes).toBe(length - 2 * grain);
      }
    });

    it('describes a request from its offset on, without gaps, at most all of it', async () => {
      const device = await factory.create(fit(1_000_000));
      const grain = device.blockBytes;
      for (const index of [0, 2, 3, 9]) await device.write(index * grain + 1, Uint8Array.of(index + 1));
      for (const [offset, length] of [
        [0, device.size],
        [1, 1],
        [grain - 1, 3 * grain + 2],
        [device.size - 1, 1],
      ] as const) {
        for (const extentsMax of [1, 2, 1000]) await checkExtents(device, offset, length, extentsMax);
      }
      if (reportsHoles) {
        const { lengths, holes } = await device.allocation(0, 10 * grain, 1000);
        expect(lengths).toEqual([grain, grain, 2 * grain, 5 * grain, grain]);
        expect(holes).toEqual([false, true, false, true, false]);
      }
    });

    it('frees what whole blocks of a zeroed range held', async () => {
      if (!reportsHoles) return;
      const device = await factory.create(fit(1_000_000));
      const grain = device.blockBytes;
      await device.write(0, new Uint8Array(8 * grain).fill(3));
      await device.zero(grain + 1, 3 * grain);
      const { lengths, holes } = await device.allocation(0, 8 * grain, 1000);
      expect(lengths).toEqual([2 * grain, 2 * grain, 4 * grain]);
      expect(holes).toEqual([false, true, false]);
    });

    it('flushes and prefetches without changing anything', async () => {
      const device = await factory.create(fit(40_000));
      const data = new SeededRandom(4).bytes(40_000);
      await device.write(0, data);
      await device.flush();
      await device.prefetch(1, 39_000);
      expect(await bytesOf(device, 0, 40_000)).toEqual(data);
    });

    it('refuses every operation that leaves the device, with range-invalid and no effect', async () => {
      const device = await factory.create(fit(10_000));
      const size = device.size;
      const ranges = [
        [size, 1],
        [size - 1, 2],
        [size + 1, 0],
        [-1, 1],
        [0, size + 1],
        [2 ** 52, 10],
        [0.5, 1],
      ] as const;
      for (const [offset, length] of ranges) {
        await expectCode('range-invalid', () =>
          device.read(offset, length, new Uint8Array(length > size ? size + 1 : length), 0),
        );
        await expectCode('range-invalid', () => device.write(offset, new Uint8Array(length)));
        await expectCode('range-invalid', () => device.zero(offset, length));
        await expectCode('range-invalid', () => device.prefetch(offset, length));
        await expectCode('range-invalid', () => device.allocation(offset, length, 10));
      }
      expect(await bytesOf(device, 0, size)).toEqual(new Uint8Array(size));
    });

    it('never tears a byte when operations overlap in flight', async () => {
      const device = await factory.create(fit(64_000));
      const random = new SeededRandom(5);
      const writes = Array.from({ length: 24 }, (_, index) => ({
        offset: random.below(40_000),
        length: 1 + random.below(20_000),
        value: index + 1,
      }));
      await Promise.all(
        writes.map(async (w) => device.write(w.offset, new Uint8Array(w.length).fill(w.value))),
      );
      const bytes = await bytesOf(device, 0, device.size);
      for (let at = 0; at < bytes.length; at++) {
        const covering = writes.filter((w) => at >= w.offset && at < w.offset + w.length);
        const allowed = covering.length === 0 ? [0] : covering.map((w) => w.value);
        if (!allowed.includes(bytes[at]!))
          expect.fail(`byte ${at} is ${bytes[at]}, none of ${allowed.join()}`);
      }
    });

    it('lets many reads and writes of different places be in flight at once', async () => {
      const device = await factory.create(fit(1_000_000));
      const random = new SeededRandom(6);
      const data = random.bytes(1_000_000);
      const pieces = Array.from({ length: 200 }, (_, index) => index * 5_000);
      await Promise.all(pieces.map(async (at) => device.write(at, data.subarray(at, at + 5_000))));
      const read = new Uint8Array(1_000_000);
      await Promise.all(pieces.map(async (at) => device.read(at, 5_000, read, at)));
      expect(Buffer.compare(read, data)).toBe(0);
    });

    if (factory.openAnother !== undefined) {
      it('shows a write that was acknowledged on one handle to every other handle', async () => {
        const device = await factory.create(fit(20_000));
        const other = await factory.openAnother!(device);
        await device.write(777, Uint8Array.of(1, 2, 3));
        await other.flush();
        expect(await bytesOf(other, 776, 5)).toEqual(Uint8Array.of(0, 1, 2, 3, 0));
        await other.zero(778, 1);
        expect(await bytesOf(device, 776, 5)).toEqual(Uint8Array.of(0, 1, 0, 3, 0));
      });
    }

    if (factory.createReadOnly !== undefined) {
      it('refuses writing to a read-only handle, and reads from it', async () => {
        const device = await factory.createReadOnly!(fit(8_192));
        expect(device.readOnly).toBe(true);
        await expectCode('read-only', () => device.write(0, Uint8Array.of(1)));
        await expectCode('read-only', () => device.zero(0, 10));
        await device.flush();
        expect(await bytesOf(device, 0, 8_192)).toEqual(new Uint8Array(8_192));
      });
    }

    it('behaves as a plain array under random operations', { timeout: 60_000 }, async () => {
      const seed = testSeed();
      const random = new SeededRandom(seed);
      try {
        const size = fit(150_000 + random.below(3));
        const device = await factory.create(size);
        const model = new Uint8Array(size);
        for (let step = 0; step < modelOperations; step++) await modelStep(device, model, random);
        expect(Buffer.compare(await bytesOf(device, 0, size), model)).toBe(0);
      } catch (error) {
        throw new Error(`the model test failed with PANDO_TEST_SEED=${seed}`, { cause: error });
      }
    });
  });
}

async function modelStep(device: BlockDevice, model: Uint8Array, random: SeededRandom): Promise<void> {
  const size = model.byteLength;
  const grain = device.blockBytes;
  let offset = random.below(size);
  let length = random.below(Math.min(size - offset, random.below(4) === 0 ? 60_000 : 2 * grain + 2) + 1);
  if (random.below(3) === 0) {
    offset = Math.floor(offset / grain) * grain;
    length = Math.min(size - offset, Math.ceil(length / grain) * grain);
  }
  switch (random.below(8)) {
    case 0:
    case 1:
    case 2: {
      const data = random.below(5) === 0 ? new Uint8Array(length) : random.bytes(length);
      await device.write(offset, data);
      model.set(data, offset);
      return;
    }
    case 3:
      await device.zero(offset, length);
      model.fill(0, offset, offset + length);
      return;
    case 4:
      if (length > 0) await checkExtents(device, offset, length, 1 + random.below(6));
      return;
    case 5:
      await (random.below(2) === 0 ? device.flush() : device.prefetch(offset, length));
      return;
    default: {
      const target = new Uint8Array(length).fill(0xa5);
      const holes: number[] = [];
      await device.read(offset, length, target, 0, random.below(2) === 0 ? holes : undefined);
      expect(Buffer.compare(target, model.subarray(offset, offset + length))).toBe(0);
      checkPairs(pairsOf(holes), offset, length, target);
    }
  }
}

async function bytesOf(device: BlockDevice, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xa5);
  await device.read(offset, length, target, 0);
  return target;
}

async function expectCode(code: string, call: () => Promise<unknown> | undefined): Promise<void> {
  let caught: unknown;
  try {
    await call();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(PandoError);
  expect((caught as PandoError).code).toBe(code);
}

function pairsOf(holes: readonly number[]): { offset: number; length: number }[] {
  expect(holes.length % 2).toBe(0);
  const pairs: { offset: number; length: number }[] = [];
  for (let i = 0; i < holes.length; i += 2) pairs.push({ offset: holes[i]!, length: holes[i + 1]! });
  return pairs;
}

function checkPairs(
  pairs: readonly { offset: number; length: number }[],
  from: number,
  length: number,
  bytes: Uint8Array,
): void {
  let at = from;
  for (const pair of pairs) {
    expect(pair.offset).toBeGreaterThanOrEqual(at);
    expect(pair.length).toBeGreaterThan(0);
    at = pair.offset + pair.length;
    expect(at).toBeLessThanOrEqual(from + length);
    expect(bytes.subarray(pair.offset - from, at - from).every((byte) => byte === 0)).toBe(true);
  }
}

async function checkExtents(
  device: BlockDevice,
  offset: number,
  length: number,
  extentsMax: number,
): Promise<void> {
  const { lengths, holes } = await device.allocation(offset, length, extentsMax);
  expect(lengths.length).toBe(holes.length);
  expect(lengths.length).toBeGreaterThan(0);
  expect(lengths.length).toBeLessThanOrEqual(extentsMax);
  let at = offset;
  for (let i = 0; i < lengths.length; i++) {
    expect(lengths[i]).toBeGreaterThan(0);
    if (i > 0) {
      expect(holes[i]).toBe(!holes[i - 1]);
      expect(at % device.blockBytes).toBe(0);
    }
    if (holes[i] === true && lengths[i]! <= 2 ** 20) {
      expect((await bytesOf(device, at, lengths[i]!)).every((byte) => byte === 0)).toBe(true);
    }
    at += lengths[i]!;
  }
  expect(at).toBeLessThanOrEqual(offset + length);
  if (at < offset + length) {
    // Less than all of the request: only because extentsMax were found, and then up to a grain's boundary.
    expect(lengths.length).toBe(extentsMax);
    expect(at % device.blockBytes).toBe(0);
  }
}
