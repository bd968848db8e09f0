/**
 * QEMU's client with extended headers (8.2 and newer), on disks in memory that are larger than 4 GiB. The server's log
 * says which replies were agreed on, and the device which ranges reached it in one request.
 */
import { MemoryBlockDevice } from '@pando/block-device';
import type { Extents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import { createNbdServer } from '@pando/nbd';
import type { NbdServer } from '@pando/nbd';
import { DeviceExports } from '@pando/nbd/testing';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect } from 'vitest';
import { EXTENDED_QEMU, itWithTools, mustRun, runTool } from '../support/tools.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const SIZE = 64 * GiB;
const CHUNK_BYTES = 4096;

/** Notes the longest range of each kind, and fails reads that touch a damaged chunk. */
class WatchedDevice extends MemoryBlockDevice {
  longestZero = 0;
  longestAllocation = 0;
  damagedAt = -1;

  override read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    const end = this.damagedAt + CHUNK_BYTES;
    if (this.damagedAt >= 0 && offset < end && offset + length > this.damagedAt) {
      throw new PandoError('chunk-corrupt', 'a test');
    }
    return super.read(offset, length, target, targetOffset, holes);
  }

  override zero(offset: number, length: number): Promise<void> | undefined {
    this.longestZero = Math.max(this.longestZero, length);
    return super.zero(offset, length);
  }

  override allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    this.longestAllocation = Math.max(this.longestAllocation, length);
    return super.allocation(offset, length, extentsMax);
  }
}

interface MapExtent {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly data: boolean;
}

describe("QEMU's client with extended headers", () => {
  const io = `qemu-io${EXTENDED_QEMU}`;
  const img = `qemu-img${EXTENDED_QEMU}`;
  let folder: string;
  let socket: string;
  let uri: string;
  let server: NbdServer;
  let exports: DeviceExports;
  let device: WatchedDevice;
  /** What each client that attached agreed on. */
  let attached: string[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pando-interop-'));
    socket = join(folder, 'nbd.sock');
    uri = `nbd+unix:///disk?socket=${socket}`;
    exports = new DeviceExports();
    device = new WatchedDevice({ size: SIZE });
    exports.set('disk', device);
    attached = [];
    const silent = (): void => undefined;
    const info = (fields: object, message: string): void => {
      if (message === 'an NBD client attached') attached.push((fields as { replies: string }).replies);
    };
    server = createNbdServer({ exports, logger: { debug: silent, info, warn: silent, error: silent } });
    await server.listen({ path: socket });
  });

  afterEach(async () => {
    await server.close();
    expect(exports.openHandles).toBe(0);
    await rm(folder, { recursive: true, force: true });
  });

  /** Runs commands of qemu-io and returns what it printed. */
  async function qemuIo(...commands: string[]): Promise<string> {
    const printed = await mustRun('qemu-io', [
      '-f',
      'raw',
      ...commands.flatMap((command) => ['-c', command]),
      uri,
    ]);
    expect(printed).not.toMatch(/failed|error/i);
    return printed;
  }

  itWithTools([io], 'qemu-io finds what it wrote, past 4 GiB too', async () => {
    await qemuIo(
      'write -P 0x5a 5G 1M',
      'read -P 0x5a 5G 1M',
      'write -f -P 7 511 1025',
      'read -P 7 511 1025',
      'write -z -u 5G 64k',
      'read -P 0 5G 64k',
      'discard 1G 1G',
      'read -P 0x5a 5368774656 64k',
      'aio_write -P 8 4294966784 2M',
      'aio_flush',
      'read -P 8 4294966784 2M',
      'flush',
    );
    expect(attached).toEqual(['extended']);
  });

  itWithTools([io], 'zeroes 30 GiB in one request', async () => {
    await qemuIo('write -P 1 10G 1M', 'write -z -n 6G 30G', 'read -P 0 10G 1M');
    expect(device.longestZero).toBe(30 * GiB);
    expect(attached).toEqual(['extended']);
  });

  itWithTools(
    [io, img],
    'qemu-img map asks for more than 4 GiB at once, and sees what lies where',
    async () => {
      await qemuIo('write -P 1 5G 1M', 'write -P 1 40G 64k');
      const map = JSON.parse(
        await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', uri]),
      ) as MapExtent[];
      expect(map.map(({ start, length, data }) => [start, length, data])).toEqual([
        [0, 5 * GiB, false],
        [5 * GiB, MiB, true],
        [5 * GiB + MiB, 35 * GiB - MiB, false],
        [40 * GiB, 65_536, true],
        [40 * GiB + 65_536, 24 * GiB - 65_536, false],
      ]);
      expect(device.longestAllocation).toBeGreaterThan(4 * GiB);
      expect(attached).toEqual(['extended', 'extended']);
    },
  );

  itWithTools([io, img], 'qemu-img converts out, in again and compares', async () => {
    await qemuIo('write -P 0x11 5G 3M', 'write -P 0x22 63G 1M', 'write -P 0x33 512 512');
    const qcow = join(folder, 'disk.qcow2');
    await mustRun('qemu-img', ['convert', '-m', '8', '-f', 'raw', '-O', 'qcow2', uri, qcow]);
    await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', uri, qcow]);
    const copy = new WatchedDevice({ size: SIZE });
    exports.set('copy', copy);
    const copyUri = `nbd+unix:///copy?socket=${socket}`;
    await mustRun('qemu-img', ['convert', '-n', '-W', '-m', '8', '-f', 'qcow2', '-O', 'raw', qcow, copyUri]);
    await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, copyUri]);
    expect(copy.allocatedBytes).toBe(4 * MiB + CHUNK_BYTES);
    expect(new Set(attached)).toEqual(new Set(['extended']));
  });

  itWithTools([img], 'reads a dirty bitmap of more than 4 GiB', async () => {
    const changed = { at: 20 * GiB, bytes: 3 * CHUNK_BYTES };
    exports.setContext('disk', 'qemu:dirty-bitmap:monday', (offset, length) => {
      const end = offset + length;
      const edges = [offset, changed.at, changed.at + changed.bytes, end].map((at) =>
        Math.min(Math.max(at, offset), end),
      );
      return { lengths: [0, 1, 2].map((i) => edges[i + 1]! - edges[i]!), flags: [0, 1, 0] };
    });
    const source = `driver=nbd,server.type=unix,server.path=${socket},export=disk,x-dirty-bitmap=qemu:dirty-bitmap:monday`;
    const map = JSON.parse(
      await mustRun('qemu-img', ['map', '--output=json', '--image-opts', source]),
    ) as MapExtent[];
    // QEMU shows what is dirty as "data": false.
    const dirty = map.filter(({ data }) => !data);
    expect(dirty.map(({ start, length }) => [start, length])).toEqual([[changed.at, changed.bytes]]);
    expect(attached).toEqual(['extended']);
  });

  itWithTools([io], 'gets EIO where chunks are damaged, and goes on', async () => {
    device.damagedAt = 5 * GiB + 8 * CHUNK_BYTES;
    const commands = ['read 5G 64k', 'read -P 0 5368766464 4k', 'read 5G 32k'];
    const { stdout, stderr } = await runTool('qemu-io', [
      '-f',
      'raw',
      ...commands.flatMap((command) => ['-c', command]),
      uri,
    ]);
    expect(stdout + stderr).toMatch(/read failed: Input\/output error/);
    expect((stdout + stderr).match(/failed/g)).toHaveLength(1);
    expect((stdout + stderr).match(/^read \d+\/\d+ bytes/gm)).toHaveLength(2);
    expect(attached).toEqual(['extended']);
  });

  itWithTools(['nbdcopy'], 'libnbd, with structured replies, gets EIO where chunks are damaged', async () => {
    const small = new WatchedDevice({ size: MiB });
    await small.write(0, new Uint8Array(MiB).fill(1));
    small.damagedAt = 9 * CHUNK_BYTES;
    exports.set('small', small);
    const { code, stderr } = await runTool('nbdcopy', [`nbd+unix:///small?socket=${socket}`, 'null:']);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/Input\/output error/);
    expect(new Set(attached)).toEqual(new Set(['structured']));
  });

  itWithTools([`qemu-nbd${EXTENDED_QEMU}`], 'qemu-nbd -L sees that 64 bits are served', async () => {
    exports.setContext('disk', 'qemu:dirty-bitmap:monday', (_, length) => ({
      lengths: [length],
      flags: [0],
    }));
    const list = await mustRun('qemu-nbd', ['-L', '-k', socket]);
    expect(list).toMatch(/transaction size: 64-bit/);
    expect(list).toMatch(/available meta contexts: 2\n\s+base:allocation\n\s+qemu:dirty-bitmap:monday/);
  });
});
