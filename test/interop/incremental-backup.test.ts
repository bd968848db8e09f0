/**
 * Incremental backups by tools that know nothing of Pando, from what it says about its disks in metadata contexts:
 * examples/incremental-backup.sh on a changing disk, and each context as nbdinfo and QEMU print it.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { connect, createVm, MiB, sha256 } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun, runTool } from '../support/tools.ts';
import type { ToolResult } from '../support/tools.ts';

const SCRIPT = fileURLToPath(new URL('../../examples/incremental-backup.sh', import.meta.url));
const SCRIPT_TOOLS = ['bash', 'awk', 'qemu-img', 'qemu-io', 'nbdinfo'];
const CHUNK = 4096;
/** The last chunk is not whole. */
const DISK_BYTES = 48 * MiB + 1536;
/** Of a qcow2 file with clusters of 4 KiB: header, tables, and one L2 table for each 2 MiB that were touched. */
const QCOW2_OVERHEAD_BYTES = 64 * CHUNK;

interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

/** Where two images differ, by the chunk, as nbdinfo would print it. */
function differences(older: Buffer, newer: Buffer): Extent[] {
  const extents: { offset: number; length: number; type: number }[] = [];
  for (let offset = 0; offset < newer.length; offset += CHUNK) {
    const end = Math.min(offset + CHUNK, newer.length);
    const type = older.compare(newer, offset, end, offset, end) === 0 ? 0 : 1;
    const last = extents.at(-1);
    if (last?.type === type) last.length += end - offset;
    else extents.push({ offset, length: end - offset, type });
  }
  return extents;
}

function dirtyBytes(extents: readonly Extent[]): number {
  return extents.reduce((sum, { length, type }) => sum + (type & 1 ? length : 0), 0);
}

describe('incremental backups by third-party tools', () => {
  const seed = testSeed();
  const random = new SeededRandom(seed);
  let server: TestServer;
  let folder: string;

  beforeAll(async () => {
    console.log(`PANDO_TEST_SEED=${seed}`);
    folder = await mkdtemp(join(tmpdir(), 'pando-incremental-'));
    server = await TestServer.start();
  });

  afterAll(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Writes to a disk and to its model. */
  async function change(
    vm: string,
    image: Buffer,
    steps: number,
    bytesMax: number,
    on = server,
  ): Promise<void> {
    const client = await connect(on, `${vm}/disk0`);
    try {
      for (let i = 0; i < steps; i++) {
        const offset = random.below(image.length);
        const length = 1 + random.below(Math.min(bytesMax, image.length - offset));
        const kind = random.below(8);
        if (kind === 0) {
          image.fill(0, offset, offset + length);
          await client.zero(offset, length);
        } else {
          // Now and then what is there already: that is no change.
          if (kind > 1) image.set(random.bytes(length), offset);
          await client.write(offset, image.subarray(offset, offset + length));
        }
      }
      await client.flush();
    } finally {
      await client.close();
    }
  }

  async function backup(vm: string, name: string): Promise<string> {
    await server.rest.must('POST', `/vms/${vm}/backups`, { name });
    return server.nbdUri(`${vm}@${name}/disk0`, 'unix');
  }

  async function map(uri: string, context: string): Promise<Extent[]> {
    const printed = await mustRun('nbdinfo', [`--map=${context}`, '--json', uri]);
    return (JSON.parse(printed) as Extent[]).map(({ offset, length, type }) => ({ offset, length, type }));
  }

  /** What a backup file holds of its own, on the disk. */
  async function storedBytes(path: string): Promise<number> {
    return (await stat(path)).blocks * 512;
  }

  itWithTools(
    SCRIPT_TOOLS,
    'a full and three incrementals of a changing disk restore bit for bit at each point',
    async () => {
      const vm = 'changing';
      const image = Buffer.alloc(DISK_BYTES);
      await createVm(server, vm, DISK_BYTES);
      const files: string[] = [];
      const images: Buffer[] = [];
      const run = (...args: readonly string[]): Promise<string> => mustRun(SCRIPT, args);

      await change(vm, image, 60, MiB);
      let uri = await backup(vm, 'T1');
      await change(vm, Buffer.from(image), 3, MiB);
      files.push(join(folder, 'T1.qcow2'));
      await run('full', uri, files[0]!);
      images.push(Buffer.from(image));
      await run('verify', uri, files[0]!);

      // T2 and on are taken while the disk goes on changing: what a backup says does not.
      const live = await connect(server, `${vm}/disk0`);
      await live.read(0, image.length, image, 0);
      await live.close();
      for (const [i, steps] of [40, 0, 12].entries()) {
        const [since, now] = [`T${i + 1}`, `T${i + 2}`];
        await change(vm, image, steps, 40_000);
        uri = await backup(vm, now);
        await change(vm, Buffer.from(image), 2, 40_000);
        const expected = differences(images.at(-1)!, image);
        expect(await map(uri, `qemu:dirty-bitmap:${since}`)).toEqual(expected);
        const file = join(folder, `${now}.qcow2`);
        await run('incremental', uri, since, files.at(-1)!, file);
        await run('verify', uri, file);
        expect(await storedBytes(file)).toBeLessThan(dirtyBytes(expected) + QCOW2_OVERHEAD_BYTES);
        files.push(file);
        images.push(Buffer.from(image));
        const reread = await connect(server, `${vm}/disk0`);
        await reread.read(0, image.length, image, 0);
        await reread.close();
      }

      // A chain needs nothing of Pando, and stands wherever its folder is.
      await server.rest.must('DELETE', `/vms/${vm}?force=true`);
      const chain = `${folder}-moved: elsewhere`;
      await rename(folder, chain);
      try {
        for (const [i, expected] of images.entries()) {
          const restored = join(chain, `restored-${i}.raw`);
          await run('restore', join(chain, `T${i + 1}.qcow2`), restored);
          expect(sha256(await readFile(restored))).toBe(sha256(expected));
        }
        await createVm(server, 'restored', DISK_BYTES);
        await run('restore', join(chain, 'T3.qcow2'), server.nbdUri('restored/disk0'));
        const bytes = Buffer.alloc(DISK_BYTES);
        const client = await connect(server, 'restored/disk0');
        await client.read(0, DISK_BYTES, bytes, 0);
        await client.close();
        expect(sha256(bytes)).toBe(sha256(images[2]!));
      } finally {
        await rename(chain, folder);
      }
    },
  );

  itWithTools(
    [...SCRIPT_TOOLS, 'nbdkit', 'psktool'],
    'over TLS the data comes through a proxy, and what changed from the server itself',
    async () => {
      const keys = join(folder, 'keys.psk');
      await mustRun('psktool', ['--username', 'backup', '--pskfile', keys]);
      const guarded = await TestServer.start({ args: ['--nbd-tls', 'allow', '--nbd-tls-psk', keys] });
      try {
        const image = Buffer.alloc(DISK_BYTES);
        await createVm(guarded, 'vm', DISK_BYTES);
        const exported = async (name: string): Promise<string> => {
          await guarded.rest.must('POST', '/vms/vm/backups', { name });
          return `nbds://backup@127.0.0.1:${guarded.nbdPort}/vm@${name}/disk0`;
        };
        const [full, next] = [join(folder, 'tls-1.qcow2'), join(folder, 'tls-2.qcow2')];
        const throughProxy = (uri: string, ...words: readonly string[]): Promise<ToolResult> => {
          const command = [SCRIPT, ...words].map((word) => `"${word}"`).join(' ');
          return runTool('nbdkit', ['-U', '-', 'nbd', `uri=${uri}`, `tls-psk=${keys}`, '--run', command], {
            env: { MAP_URI: `${uri}?tls-psk-file=${keys}` },
          });
        };
        await change('vm', image, 10, MiB, guarded);
        expect(await throughProxy(await exported('one'), 'full', '$uri', full)).toMatchObject({
          code: 0,
          stderr: '',
        });
        await change('vm', image, 10, 50_000, guarded);
        const uri = await exported('two');
        const made = await throughProxy(uri, 'incremental', '$uri', 'one', full, next);
        expect(made).toMatchObject({ code: 0, stderr: '' });
        expect(await throughProxy(uri, 'verify', '$uri', next)).toMatchObject({ code: 0, stderr: '' });
        const restored = join(folder, 'tls.raw');
        await mustRun(SCRIPT, ['restore', next, restored]);
        expect(sha256(await readFile(restored))).toBe(sha256(image));
      } finally {
        await guarded.close();
      }
    },
  );

  itWithTools(SCRIPT_TOOLS, 'a disk that grew is backed up at its new size', async () => {
    const vm = 'growing';
    const image = Buffer.alloc(2 * DISK_BYTES);
    await createVm(server, vm, DISK_BYTES);
    await change(vm, image.subarray(0, DISK_BYTES), 10, MiB);
    const [full, next, raw] = ['1.qcow2', '2.qcow2', 'grown.raw'].map((name) =>
      join(folder, `growing-${name}`),
    );
    await mustRun(SCRIPT, ['full', await backup(vm, 'small'), full!]);
    await server.rest.must('PATCH', `/vms/${vm}`, { disk: { name: 'disk0', sizeBytes: image.length } });
    await change(vm, image, 10, 50_000);
    const uri = await backup(vm, 'large');
    await mustRun(SCRIPT, ['incremental', uri, 'small', full!, next!]);
    await mustRun(SCRIPT, ['verify', uri, next!]);
    await mustRun(SCRIPT, ['restore', next!, raw!]);
    expect(sha256(await readFile(raw!))).toBe(sha256(image));
  });

  itWithTools(SCRIPT_TOOLS, 'the script says what is wrong, and leaves nothing half done', async () => {
    const vm = 'wrong';
    await createVm(server, vm, MiB);
    const uri = await backup(vm, 'a');
    const full = join(folder, 'wrong.qcow2');
    const next = join(folder, 'next.qcow2');
    await mustRun(SCRIPT, ['full', uri, full]);
    const refused = async (args: readonly string[], code: number, what: RegExp): Promise<void> => {
      const result = await runTool(SCRIPT, args);
      expect(result.stderr).toMatch(what);
      expect(result.code).toBe(code);
      expect(existsSync(next)).toBe(false);
    };
    await refused(['full', uri, full], 1, /exists already/);
    await refused(['incremental', uri, 'no-such-backup', full, next], 1, /qemu:dirty-bitmap:no-such-backup/);
    await refused(['incremental', uri, 'a', join(folder, 'none.qcow2'), next], 1, /none\.qcow2/);
    await refused(['full', server.nbdUri(`${vm}@none/disk0`, 'unix'), next], 1, /none/);
    await refused(['full', uri], 2, /usage/);
    await refused(['everything', uri, next], 2, /usage/);
    const client = await connect(server, `${vm}/disk0`);
    await client.write(5000, Buffer.from('changed'));
    await client.close();
    expect((await runTool(SCRIPT, ['verify', await backup(vm, 'b'), full])).code).toBe(1);
  });

  itWithTools(
    ['qemu-img', 'nbdinfo'],
    'QEMU reads a dirty bitmap as x-dirty-bitmap, and the live disk has one too',
    async () => {
      const vm = 'bitmaps';
      const image = Buffer.alloc(DISK_BYTES);
      await createVm(server, vm, DISK_BYTES);
      await change(vm, image, 20, MiB);
      await backup(vm, 'T1');
      const older = Buffer.from(image);
      await change(vm, image, 20, 20_000);
      const expected = differences(older, image);
      // Not destaged, and backed up: the same answer.
      expect(await map(server.nbdUri(`${vm}/disk0`), 'qemu:dirty-bitmap:T1')).toEqual(expected);
      await backup(vm, 'T2');
      const options = [
        ...['driver=nbd', 'server.type=unix', `server.path=${server.nbdSocket}`],
        ...[`export=${vm}@T2/disk0`, 'x-dirty-bitmap=qemu:dirty-bitmap:T1'],
      ].join(',');
      const printed = await mustRun('qemu-img', ['map', '--output=json', '--image-opts', options]);
      const extents = JSON.parse(printed) as { start: number; length: number; data: boolean }[];
      // In place of base:allocation, where bit 0 stands for a hole: so to QEMU what is dirty is "no data".
      expect(
        extents.map(({ start, length, data }) => ({ offset: start, length, type: data ? 0 : 1 })),
      ).toEqual(expected);
    },
  );

  itWithTools(
    ['nbdinfo', 'qemu-img'],
    'nbdinfo lists the contexts of an export and prints depth and root',
    async () => {
      const vm = 'contexts';
      await createVm(server, vm, 16 * MiB);
      const client = await connect(server, `${vm}/disk0`);
      await client.write(0, Buffer.alloc(MiB, 1));
      await client.write(8 * MiB, Buffer.alloc(MiB, 2));
      const uri = await backup(vm, 'one');
      await client.write(MiB / 2, Buffer.alloc(MiB, 3));
      await client.flush();
      await client.close();
      const live = server.nbdUri(`${vm}/disk0`, 'unix');

      // 0 hole, 1 written since the newest fork, 2 older.
      expect(await map(live, 'qemu:allocation-depth')).toEqual([
        { offset: 0, length: MiB / 2, type: 2 },
        { offset: MiB / 2, length: MiB, type: 1 },
        { offset: 1.5 * MiB, length: 6.5 * MiB, type: 0 },
        { offset: 8 * MiB, length: MiB, type: 2 },
        { offset: 9 * MiB, length: 7 * MiB, type: 0 },
      ]);
      expect(await map(uri, 'qemu:dirty-bitmap:one')).toEqual([{ offset: 0, length: 16 * MiB, type: 0 }]);

      const listed = JSON.parse(
        await mustRun('nbdinfo', ['--json', '--list', `nbd+unix:///?socket=${server.nbdSocket}`]),
      ) as { exports: { 'export-name': string; 'contexts': string[] }[] };
      const contextsOf = (name: string): string[] | undefined =>
        listed.exports.find((entry) => entry['export-name'] === name)?.contexts;
      for (const name of [`${vm}/disk0`, `${vm}@one/disk0`]) {
        expect(contextsOf(name)).toEqual(
          expect.arrayContaining(['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:one']),
        );
        expect(contextsOf(name)!.some((context) => context.startsWith('x-pando:root'))).toBe(true);
      }
      // Every byte of the disk is in its root (0) or not yet (1).
      const root = await map(live, 'x-pando:root');
      expect(root.reduce((sum, { length }) => sum + length, 0)).toBe(16 * MiB);
      expect(root.every(({ type }) => type === 0 || type === 1)).toBe(true);
    },
  );
});
