import { describe, expect, it } from 'vitest';
import { testBlockDevice } from './conformance.ts';
import { MemoryBlockDevice } from './memory-block-device.ts';
import { DelayDevice } from './testing.ts';
import type { BlockDevice } from './types.ts';

for (const blockBytes of [512, 4096, 65_536]) {
  const devices = new Map<BlockDevice, MemoryBlockDevice>();
  testBlockDevice(
    `memory, blocks of ${blockBytes}`,
    {
      create: (size) => {
        const device = new MemoryBlockDevice({ size, blockBytes });
        devices.set(device, device);
        return Promise.resolve(device);
      },
      openAnother: (device) => Promise.resolve(devices.get(device)!.handle()),
      createReadOnly: (size) => Promise.resolve(new MemoryBlockDevice({ size, blockBytes, readOnly: true })),
    },
    { reportsHoles: true },
  );
}

testBlockDevice(
  'memory, every operation delayed',
  {
    create: (size) => {
      const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
      return Promise.resolve(new DelayDevice(new MemoryBlockDevice({ size }), turn));
    },
  },
  { reportsHoles: true },
);

describe('memory block device', () => {
  it('holds memory for blocks that were written only, and frees it when they are zeroed', async () => {
    const device = new MemoryBlockDevice({ size: 2 ** 40 });
    expect(device.allocatedBytes).toBe(0);
    await device.write(4095, Uint8Array.of(1, 2));
    expect(device.allocatedBytes).toBe(8192);
    await device.zero(0, 4096);
    expect(device.allocatedBytes).toBe(4096);
    await device.zero(0, 2 ** 40);
    expect(device.allocatedBytes).toBe(0);
  });

  it('frees the last block of a device whose size is no multiple of the block', async () => {
    const device = new MemoryBlockDevice({ size: 5000 });
    await device.write(4096, new Uint8Array(904).fill(1));
    await device.zero(4096, 904);
    expect(device.allocatedBytes).toBe(0);
  });

  it('returns undefined, not a promise, from reads and writes', () => {
    const device = new MemoryBlockDevice({ size: 10_000 });
    expect(device.write(0, new Uint8Array(10))).toBeUndefined();
    expect(device.read(0, 10, new Uint8Array(10), 0)).toBeUndefined();
    expect(device.zero(0, 10)).toBeUndefined();
  });

  it('refuses a block size that is no power of two', () => {
    expect(() => new MemoryBlockDevice({ size: 1, blockBytes: 3000 })).toThrow(/power of two/);
  });
});
