/**
 * What tools that copy, proxy and mount disks do with a disk that Pando serves, many requests and connections at a
 * time: the other half of the suite in nbd-clients.ts, over the same factory.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, copyFile, cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { EXTENDED_QEMU, itWithTools, mustRun, runTool } from '../support/tools.ts';
import type { DiskFactory } from './nbd-clients.ts';
import { StorageDaemon } from './storage-daemon.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const CONNECTIONS = 8;
const DEPTH = 64;
const MOUNT_MS_MAX = 20_000;

/** What `qemu-img map --output=json` prints of an extent. */
interface MappedExtent {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly data: boolean;
}

export function testStorageTools(name: string, start: () => Promise<DiskFactory>): void {
  describe(`tools that copy, proxy and mount, on ${name}`, () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    let factory: DiskFactory;
    let folder: string;

    beforeAll(async () => {
      console.log(`PANDO_TEST_SEED=${seed}`);
      folder = await mkdtemp(join(tmpdir(), 'pando-tools-'));
      factory = await start();
    });

    afterAll(async () => {
      await factory.close();
      await rm(folder, { recursive: true, force: true });
    });

    /** A file with data, zeros and odd ends. */
    async function imageFile(bytes: number): Promise<string> {
      const image = Buffer.alloc(bytes);
      for (let i = 0; i < 40; i++) {
        const at = random.below(bytes);
        image.set(random.bytes(random.below(Math.min(256 * 1024, bytes - at))), at);
      }
      const path = join(folder, `image-${random.next()}.raw`);
      await writeFile(path, image);
      return path;
    }

    itWithTools(['fio'], 'fio verifies with 8 connections at depth 64, reads in between', async () => {
      const jobBytes = 4 * MiB;
      const disk = await factory.create(CONNECTIONS * jobBytes);
      // Each job writes no place twice: of writes in flight at a time fio does not know which comes last.
      for (const mix of [
        ['--rw=randwrite', '--bs=4k'],
        ['--rw=randrw', '--bs=16k', '--fsync=32'],
        ['--rw=write', '--bsrange=512-128k'],
      ]) {
        const printed = await mustRun(
          'fio',
          [
            ...['--name=v', '--ioengine=nbd', `--uri=${disk.tcpUri}`, `--iodepth=${DEPTH}`, ...mix],
            ...[`--numjobs=${CONNECTIONS}`, `--size=${jobBytes}`, `--offset_increment=${jobBytes}`],
            ...['--verify=crc32c', '--verify_fatal=1', '--verify_dump=0', `--randseed=${seed}`, '--thread'],
            ...['--group_reporting', '--output-format=json'],
          ],
          { cwd: folder },
        );
        const { jobs } = JSON.parse(printed.slice(printed.indexOf('{'))) as {
          jobs: { error: number; read: { total_ios: number }; write: { io_bytes: number } }[];
        };
        expect(jobs[0]!.error).toBe(0);
        expect(jobs[0]!.read.total_ios).toBeGreaterThan(0);
        expect(jobs[0]!.write.io_bytes).toBeGreaterThan(jobBytes);
      }
    });

    itWithTools(
      ['nbdcopy', 'cmp'],
      'nbdcopy moves an image in and out with 8 connections and 64 requests on each',
      async () => {
        const bytes = 40 * MiB + 512;
        const image = await imageFile(bytes);
        const disk = await factory.create(bytes);
        const many = [`--connections=${CONNECTIONS}`, `--requests=${DEPTH}`];
        for (const uri of [disk.uri, disk.tcpUri]) {
          await mustRun('nbdcopy', [...many, '--request-size=65536', '--flush', image, uri]);
          const out = join(folder, 'copied.raw');
          await mustRun('nbdcopy', [...many, uri, out]);
          await mustRun('cmp', [image, out]);
        }
      },
    );

    itWithTools(
      ['qemu-img', 'qemu-io'],
      'qemu-img bench writes with flushes between, and reads',
      async () => {
        const disk = await factory.create(32 * MiB);
        const bench = ['bench', '-f', 'raw', '-t', 'none', '-d', String(DEPTH)];
        const write = [
          '-w',
          '--pattern=0x5a',
          '-c',
          '2048',
          '-s',
          '4096',
          '-S',
          '8192',
          '--flush-interval=64',
        ];
        await mustRun('qemu-img', [...bench, ...write, disk.uri]);
        await mustRun('qemu-img', [...bench, '-c', '2000', '-s', '65536', disk.uri]);
        const probes = [0, 8192, 9_437_184, 16 * MiB - 8192].flatMap((at) => [
          ...['-c', `read -P 0x5a ${at} 4096`],
          ...['-c', `read -P 0 ${at + 4096} 4096`],
        ]);
        await mustRun('qemu-io', ['-f', 'raw', ...probes, '-c', 'read -P 0 16M 16M', disk.uri]);
      },
    );

    itWithTools(['qemu-img', 'qemu-io'], 'qemu-img map tells where zeros are, to the chunk', async () => {
      const disk = await factory.create(64 * MiB);
      const writes = ['write -P 1 4k 4k', 'write -P 2 1M 1M', 'write -P 3 32M 64k', 'discard 1M 512k'];
      await mustRun('qemu-io', ['-f', 'raw', ...writes.flatMap((command) => ['-c', command]), disk.uri]);
      const map = JSON.parse(
        await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', disk.tcpUri]),
      ) as MappedExtent[];
      expect(map.map(({ start: at, length, zero }) => [at, length, zero])).toEqual([
        [0, 4096, true],
        [4096, 4096, false],
        [8192, 1.5 * MiB - 8192, true],
        [1.5 * MiB, 0.5 * MiB, false],
        [2 * MiB, 30 * MiB, true],
        [32 * MiB, 65_536, false],
        [32 * MiB + 65_536, 32 * MiB - 65_536, true],
      ]);
    });

    itWithTools(['nbd-client'], 'nbd-client lists the exports', async () => {
      const disk = await factory.create(MiB);
      const { hostname, port } = new URL(disk.tcpUri);
      const listed = await mustRun('nbd-client', ['-l', hostname, port]);
      expect(listed.split('\n').map((line) => line.trim())).toContain(disk.exportName);
    });

    itWithTools(
      ['nbdkit', 'nbdcopy', 'cmp'],
      "behind nbdkit's retry and blocksize filters a disk is the same disk",
      async () => {
        const bytes = 24 * MiB + 512;
        const disk = await factory.create(bytes);
        const image = await imageFile(bytes);
        const back = join(folder, 'through.raw');
        const filters = ['--filter=blocksize', '--filter=retry'];
        const parameters = [
          `uri=${disk.uri}`,
          'minblock=4096',
          'maxdata=65536',
          'retries=2',
          'retry-delay=1',
        ];
        // The blocksize filter cuts a disk down to whole blocks of its own.
        const run = [
          `nbdcopy --connections=${CONNECTIONS} --requests=${DEPTH} "${image}.cut" "$uri"`,
          `nbdcopy --connections=${CONNECTIONS} --requests=${DEPTH} "$uri" "${back}"`,
        ].join(' && ');
        await copyFile(image, `${image}.cut`);
        await mustRun('truncate', ['-s', String(24 * MiB), `${image}.cut`]);
        await mustRun('nbdkit', ['-U', '-', ...filters, 'nbd', ...parameters, '--run', run]);
        await mustRun('cmp', [`${image}.cut`, back]);
        const direct = join(folder, 'direct.raw');
        await mustRun('nbdcopy', [disk.tcpUri, direct]);
        await mustRun('cmp', ['-n', String(24 * MiB), image, direct]);
      },
    );

    itWithTools(
      ['nbdkit', 'nbdcopy'],
      "nbdkit's checkwrite filter takes the oracle's bytes again, and no others",
      async () => {
        const disk = await factory.create(48 * MiB);
        const oracle = (oracleSeed: number): readonly string[] => [
          ...['[', 'nbdkit', '--exit-with-parent', 'sparse-random', '48M', `seed=${oracleSeed}`],
          // Short runs: with those of 16 MiB that it makes by itself, one disk in five is empty.
          ...['percent=30', 'runlength=65536', ']'],
        ];
        await mustRun('nbdcopy', ['--', ...oracle(seed), disk.uri]);
        const through = (oracleSeed: number): readonly string[] => {
          const words = ['nbdcopy', '--', ...oracle(oracleSeed), '"$uri"'].join(' ');
          return ['-U', '-', '--filter=checkwrite', 'nbd', `uri=${disk.uri}`, '--run', words];
        };
        await mustRun('nbdkit', through(seed));
        expect((await runTool('nbdkit', through(seed + 1))).code).not.toBe(0);
        // The checkwrite filter let nothing through.
        await mustRun('nbdcopy', ['--', disk.tcpUri, ...oracle(seed)]);
      },
    );

    itWithTools(
      [
        'nbdfuse',
        'fusermount3',
        'mkfs.ext4',
        'mount',
        'e2fsck',
        'nbdcopy',
        'diff',
        '/dev/fuse',
        '/dev/loop-control',
      ],
      'a file system on nbdfuse keeps its files, and e2fsck finds nothing',
      async () => {
        const disk = await factory.create(64 * MiB);
        const work = await mkdtemp(join(folder, 'fuse-'));
        const [tree, fuse, mounted] = [join(work, 'tree'), join(work, 'fuse'), join(work, 'mounted')];
        for (const path of [join(tree, 'a/b'), fuse, mounted]) await mkdir(path, { recursive: true });
        for (let i = 0; i < 60; i++) {
          await writeFile(
            join(tree, i % 3 === 0 ? 'a/b' : 'a', `f${i}`),
            random.bytes(random.below(200_000)),
          );
        }
        const file = join(fuse, 'disk');
        const nbdfuse = spawn('nbdfuse', ['--connections', '4', file, disk.uri], {
          stdio: ['ignore', 'inherit', 'inherit'],
        });
        const ended = once(nbdfuse, 'close') as Promise<[number | null]>;
        try {
          const deadline = performance.now() + MOUNT_MS_MAX;
          while (
            !(await access(file).then(
              () => true,
              () => false,
            ))
          ) {
            if (performance.now() > deadline || nbdfuse.exitCode !== null)
              throw new Error('nbdfuse has no file');
            await sleep(20);
          }
          await mustRun('mkfs.ext4', ['-q', '-F', file]);
          await mustRun('mount', ['-o', 'loop', file, mounted]);
          try {
            await cp(join(tree, 'a'), join(mounted, 'a'), { recursive: true });
            await rm(join(mounted, 'a', 'f1'));
            await mustRun('sync', ['-f', mounted]);
            await cp(join(tree, 'a', 'f1'), join(mounted, 'a', 'f1'));
          } finally {
            await mustRun('umount', [mounted]);
          }
          await mustRun('e2fsck', ['-f', '-n', file]);
        } finally {
          await runTool('fusermount3', ['-u', fuse]);
          const timer = setTimeout(() => nbdfuse.kill('SIGKILL'), MOUNT_MS_MAX);
          await ended;
          clearTimeout(timer);
        }
        // What another connection reads is that file system, complete.
        const copy = join(work, 'copy.raw');
        await mustRun('nbdcopy', [disk.tcpUri, copy]);
        await mustRun('e2fsck', ['-f', '-n', copy]);
        await mustRun('mount', ['-o', 'loop,ro', copy, mounted]);
        try {
          await mustRun('diff', ['-r', join(tree, 'a'), join(mounted, 'a')]);
        } finally {
          await mustRun('umount', [mounted]);
        }
      },
    );

    itWithTools(
      [`qemu-io${EXTENDED_QEMU}`, 'qemu-img'],
      'QEMU speaks extended headers: one status of 16 GiB, zeros and discards of gigabytes',
      async () => {
        const disk = await factory.create(16 * GiB);
        // qemu-io takes no length of 2 GiB or more; what it asks for goes out as one request.
        const most = 2 * GiB - 65_536;
        const steps = [
          ...['write -P 1 0 64k', 'write -P 2 5G 64k', 'write -P 3 9G 64k', 'write -P 4 17179803648 64k'],
          ...[0, 1, 2, 3].map((i) => `write -z -u ${i * most} ${most}`),
          ...['read -P 0 5G 64k', 'read -P 3 9G 64k', `discard 8G ${most}`, 'read -P 0 9G 64k', 'flush'],
        ];
        const { code, stdout, stderr } = await runTool('qemu-io', [
          ...['--trace', 'nbd_send_request', '-f', 'raw'],
          ...[...steps, 'map'].flatMap((step) => ['-c', step]),
          disk.uri,
        ]);
        expect(`${code} ${stdout}`).not.toMatch(/^[^0]|failed/);
        // 16 GiB do not fit into the 32 bits of a compact request.
        expect(stderr).toMatch(new RegExp(`\\.len = ${16 * GiB}, .*block status`));
        expect(stderr).toMatch(new RegExp(`\\.len = ${most}, .*write zeroes`));
        const map = JSON.parse(
          await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', disk.tcpUri]),
        ) as MappedExtent[];
        expect(map.map(({ start: at, length, zero }) => [at, length, zero])).toEqual([
          [0, 16 * GiB - 65_536, true],
          [16 * GiB - 65_536, 65_536, false],
        ]);
        // An empty image of the same size makes the disk empty, in requests as large as QEMU likes them.
        const empty = join(folder, 'empty.raw');
        await mustRun('truncate', ['-s', '16G', empty]);
        await mustRun('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', empty, disk.uri]);
        await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', empty, disk.uri]);
      },
    );

    itWithTools(
      ['qemu-storage-daemon', 'qemu-img'],
      'qemu-storage-daemon backs a disk up to qcow2, and mirrors an image onto a disk',
      async () => {
        const bytes = 32 * MiB;
        const [image, qcow] = [await imageFile(bytes), join(folder, 'daemon.qcow2')];
        const [source, target] = [await factory.create(bytes), await factory.create(bytes)];
        await mustRun('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, source.uri]);
        await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', qcow, String(bytes)]);
        const daemon = await StorageDaemon.start();
        const blockdev = (node: string, rest: object): Promise<unknown> =>
          daemon.execute('blockdev-add', { 'node-name': node, ...rest });
        const nbd = (path: string, exportName: string): object => ({
          'driver': 'nbd',
          'server': { type: 'unix', path },
          'export': exportName,
          'reconnect-delay': 5,
        });
        try {
          await blockdev('source', { ...nbd(source.socket, source.exportName), 'read-only': true });
          await blockdev('target', nbd(target.socket, target.exportName));
          await blockdev('qcow', { driver: 'qcow2', file: { driver: 'file', filename: qcow } });
          await blockdev('image', { 'driver': 'file', 'filename': image, 'read-only': true });
          await daemon.execute('blockdev-backup', {
            ...{ 'job-id': 'backup', 'device': 'source', 'target': 'qcow', 'sync': 'full' },
          });
          expect((await daemon.event('BLOCK_JOB_COMPLETED', 'backup')).error).toBeUndefined();
          await daemon.execute('blockdev-mirror', {
            ...{ 'job-id': 'mirror', 'device': 'image', 'target': 'target', 'sync': 'full' },
          });
          await daemon.event('BLOCK_JOB_READY', 'mirror');
          await daemon.execute('block-job-cancel', { device: 'mirror' });
          expect((await daemon.event('BLOCK_JOB_COMPLETED', 'mirror')).error).toBeUndefined();
        } finally {
          await daemon.close();
        }
        await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', image, qcow]);
        await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, target.tcpUri]);
      },
    );
  });
}
