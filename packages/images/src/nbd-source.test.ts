/** Reading exports as sources, from our own server over devices that say what a test wants. */
import { MemoryBlockDevice, type BlockDevice, type Extents } from '@pando/block-device';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { PandoError, type DiskPart } from '@pando/common';
import { createNbdServer, type NbdServer } from '@pando/nbd';
import { DeviceExports } from '@pando/nbd/testing';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openNbdSource } from './nbd-source.ts';

const MiB = 2 ** 20;

let folder: string;
let server: NbdServer | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-nbd-source-'));
});
afterEach(async () => {
  await server?.close({ drainMsMax: 2_000 });
  server = undefined;
  await rm(folder, { recursive: true, force: true });
});

/** Counts what is asked, and answers as the fields say. */
class Watched extends MemoryBlockDevice {
  reads = 0;
  readBytes = 0;
  asks = 0;
  readsNow = 0;
  readsAtOnceMax = 0;
  extentsPerAnswer = Infinity;
  failAt = Infinity;

  override async read(...args: Parameters<BlockDevice['read']>): Promise<void> {
    const [offset, length] = args;
    this.reads++;
    this.readBytes += length;
    this.readsAtOnceMax = Math.max(this.readsAtOnceMax, ++this.readsNow);
    await new Promise((resolve) => setImmediate(resolve));
    this.readsNow--;
    if (offset + length > this.failAt) throw new PandoError('chunk-corrupt', 'the disk is damaged there');
    await super.read(...args);
  }

  override allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    this.asks++;
    return super.allocation(offset, length, Math.min(extentsMax, this.extentsPerAnswer));
  }
}

async function serve(device: BlockDevice): Promise<string> {
  const exports = new DeviceExports();
  exports.set('a disk', device);
  server = createNbdServer({ exports });
  const path = join(folder, 'nbd.sock');
  await server.listen({ path });
  return `nbd+unix:///a%20disk?socket=${encodeURIComponent(path)}`;
}

/** The bytes of a disk, and the parts by their lengths, holes negative. */
async function collect(parts: AsyncIterable<DiskPart>): Promise<{ bytes: Buffer; shape: number[] }> {
  const pieces: Buffer[] = [];
  const shape: number[] = [];
  for await (const part of parts) {
    if (part instanceof Uint8Array) {
      pieces.push(Buffer.from(part));
      shape.push(part.byteLength);
    } else {
      pieces.push(Buffer.alloc(part.holeBytes));
      shape.push(-part.holeBytes);
    }
  }
  return { bytes: Buffer.concat(pieces), shape };
}

const never = new AbortController().signal;

async function contentOf(device: BlockDevice): Promise<Buffer> {
  const bytes = Buffer.alloc(device.size);
  await device.read(0, device.size, bytes, 0);
  return bytes;
}

it('reads a disk byte for byte, as often as one likes, and passes its holes by', async () => {
  const device = new Watched({ size: 64 * MiB + 512 });
  await device.write(3 * MiB + 100, Buffer.alloc(5 * MiB, 7));
  await device.write(64 * MiB, Buffer.alloc(512, 9));
  const source = await openNbdSource(await serve(device));
  expect(source).toMatchObject({ format: 'nbd', sizeBytes: 64 * MiB + 512 });
  const first = await collect(source.parts(never));
  expect(device.readBytes).toBeLessThan(6 * MiB);
  expect(device.readsAtOnceMax).toBeGreaterThan(1);
  const second = await collect(source.parts(never));
  await source.close();
  expect(first.bytes.equals(await contentOf(device))).toBe(true);
  expect(second.shape).toEqual(first.shape);
  expect(second.bytes.equals(first.bytes)).toBe(true);
  expect(first.shape.some((bytes, i) => bytes < 0 && (first.shape[i + 1] ?? 1) < 0)).toBe(false);
});

it('reads what is written in many small extents with few questions, whatever the server answers at once', async () => {
  const random = new SeededRandom(testSeed());
  const device = new Watched({ size: 64 * MiB });
  for (let at = 0; at < device.size; at += 16_384) {
    await device.write(at, random.bytes(4096));
  }
  device.extentsPerAnswer = 1;
  const source = await openNbdSource(await serve(device));
  const { bytes } = await collect(source.parts(never));
  await source.close();
  expect(device.asks).toBeLessThan(64);
  expect(device.reads).toBeLessThan(200);
  expect(bytes.equals(await contentOf(device))).toBe(true);
});

it('ends with the reason of its signal, and can be closed then', async () => {
  const device = new Watched({ size: 64 * MiB });
  await device.write(0, Buffer.alloc(32 * MiB, 1));
  const source = await openNbdSource(await serve(device));
  const stop = new AbortController();
  const reason = new PandoError('cancelled', 'enough');
  const reading = (async () => {
    for await (const part of source.parts(stop.signal)) {
      expect(part).toBeInstanceOf(Uint8Array);
      stop.abort(reason);
    }
  })();
  await expect(reading).rejects.toBe(reason);
  await source.close();
});

it('tells an error of the server from a connection that broke', async () => {
  const device = new Watched({ size: 64 * MiB });
  await device.write(0, Buffer.alloc(32 * MiB, 1));
  device.failAt = 20 * MiB;
  const uri = await serve(device);
  const source = await openNbdSource(uri);
  await expect(collect(source.parts(never))).rejects.toMatchObject({ code: 'source-failed' });
  await source.close();

  device.failAt = Infinity;
  const cut = await openNbdSource(uri);
  const reading = (async () => {
    for await (const part of cut.parts(never)) {
      expect(part).toBeInstanceOf(Uint8Array);
      await server!.close({ drainMsMax: 0 });
    }
  })();
  await expect(reading).rejects.toMatchObject({
    code: expect.stringMatching(/connection-lost|source-failed/) as string,
  });
  await cut.close();
});

it('refuses an export that is not there, and TLS where there is none', async () => {
  const uri = await serve(new MemoryBlockDevice({ size: MiB }));
  await expect(openNbdSource(uri.replace('a%20disk', 'nothing'))).rejects.toMatchObject({
    code: 'export-missing',
  });
  await expect(openNbdSource(uri.replace('nbd+unix', 'nbds+unix'))).rejects.toMatchObject({
    code: 'tls-failed',
  });
  await expect(openNbdSource(`nbd+unix:///?socket=${folder}/none`)).rejects.toMatchObject({
    code: 'connection-lost',
  });
});
