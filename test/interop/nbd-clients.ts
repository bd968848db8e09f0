/**
 * What real NBD clients have to be able to do with a disk that Pando serves: a suite over a factory of disks, so that
 * memory, volumes and whatever comes run the same.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { EXTENDED_QEMU, itWithTools, mustRun, runTool } from '../support/tools.ts';

/** A disk that is being served. */
export interface ServedDisk {
  readonly exportName: string;
  /** URI over the Unix socket of the server. */
  readonly uri: string;
  /** URI over TCP. */
  readonly tcpUri: string;
  /** Path of the Unix socket. */
  readonly socket: string;
}

export interface DiskFactory {
  /** A fresh disk full of zeros; several may be served at once. */
  create(sizeBytes: number): Promise<ServedDisk>;
  close(): Promise<void>;
}

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** Values of "key: value" lines. */
function field(text: string, key: string): string | undefined {
  return new RegExp(`^\\s*${key}: *(.*)$`, 'm').exec(text)?.[1];
}

/** Bytes that look like a disk: data, zeros, and data that repeats. */
function sampleImage(bytes: number): Buffer {
  const image = Buffer.alloc(bytes);
  let state = 12_345;
  for (let at = 0; at < bytes; at += 65_536) {
    const kind = (at / 65_536) % 4;
    if (kind === 0) continue;
    for (let i = at; i < Math.min(bytes, at + 65_536); i++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      image[i] = kind === 1 ? 0x5a : state >>> 24;
    }
  }
  return image;
}

export function testNbdClients(name: string, start: () => Promise<DiskFactory>): void {
  describe(`real NBD clients on ${name}`, () => {
    let factory: DiskFactory;
    let folder: string;

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'pando-interop-'));
      factory = await start();
    });

    afterAll(async () => {
      await factory.close();
      await rm(folder, { recursive: true, force: true });
    });

    /** A source image in a file. */
    async function imageFile(bytes: number): Promise<string> {
      const path = join(folder, `image-${bytes}.raw`);
      await writeFile(path, sampleImage(bytes));
      return path;
    }

    itWithTools(['nbdinfo'], 'nbdinfo sees size, flags, block sizes and base:allocation', async () => {
      const disk = await factory.create(64 * MiB);
      const info = JSON.parse(await mustRun('nbdinfo', ['--json', disk.uri])) as {
        protocol: string;
        structured: boolean;
        exports: Record<string, unknown>[];
      };
      expect(info).toMatchObject({ protocol: 'newstyle-fixed', structured: true });
      expect(info.exports[0]).toMatchObject({
        'export-name': disk.exportName,
        'export-size': 64 * MiB,
        'contexts': expect.arrayContaining(['base:allocation']) as unknown,
        'is_read_only': false,
        'can_cache': true,
        'can_df': true,
        'can_fast_zero': true,
        'can_flush': true,
        'can_fua': true,
        'can_multi_conn': true,
        'can_trim': true,
        'can_zero': true,
        'block_size_minimum': 1,
        'block_size_maximum': 32 * MiB,
      });
      for (const uri of [disk.uri, disk.tcpUri]) {
        expect((await runTool('nbdinfo', ['--can', 'multi-conn', uri])).code).toBe(0);
        expect((await mustRun('nbdinfo', ['--size', uri])).trim()).toBe(String(64 * MiB));
      }
    });

    itWithTools(
      ['nbdinfo'],
      'nbdinfo lists the export, and is told when there is none of a name',
      async () => {
        const disk = await factory.create(MiB);
        const list = await mustRun('nbdinfo', ['--list', `nbd+unix:///?socket=${disk.socket}`]);
        expect(list).toContain(`export="${disk.exportName}"`);
        const { code } = await runTool('nbdinfo', [`nbd+unix:///no-such-export?socket=${disk.socket}`]);
        expect(code).not.toBe(0);
      },
    );

    itWithTools(['nbdinfo', 'qemu-io'], 'nbdinfo --map shows what is stored where', async () => {
      const disk = await factory.create(64 * MiB);
      await mustRun('qemu-io', [
        '-f',
        'raw',
        '-c',
        'write -P 1 1M 64k',
        '-c',
        'write -P 2 40M 1M',
        '-c',
        'flush',
        disk.uri,
      ]);
      const map = JSON.parse(await mustRun('nbdinfo', ['--map', '--json', disk.uri])) as {
        offset: number;
        length: number;
        type: number;
      }[];
      expect(map.map(({ offset, length, type }) => [offset, length, type])).toEqual([
        [0, MiB, 3],
        [MiB, 65_536, 0],
        [MiB + 65_536, 39 * MiB - 65_536, 3],
        [40 * MiB, MiB, 0],
        [41 * MiB, 23 * MiB, 3],
      ]);
    });

    itWithTools(['nbdcopy'], 'nbdcopy copies an image in and out over several connections', async () => {
      const bytes = 48 * MiB + 512;
      const image = await imageFile(bytes);
      const disk = await factory.create(bytes);
      await mustRun('nbdcopy', ['--connections=4', '--requests=64', image, disk.uri]);
      for (const [i, uri] of [disk.uri, disk.tcpUri].entries()) {
        const out = join(folder, `copied-${i}.raw`);
        await mustRun('nbdcopy', ['--connections=4', '--requests=64', uri, out]);
        expect(Buffer.compare(await readFile(out), await readFile(image))).toBe(0);
      }
    });

    itWithTools(['nbdcopy'], 'nbdcopy copies from one disk to another and back, zeros and all', async () => {
      const bytes = 16 * MiB;
      const source = await factory.create(bytes);
      const target = await factory.create(bytes);
      const image = await imageFile(bytes);
      await mustRun('nbdcopy', [image, source.uri]);
      await mustRun('nbdcopy', ['--connections=2', source.uri, target.tcpUri]);
      await mustRun('nbdcopy', ['--destination-is-zero', source.uri, (await factory.create(bytes)).uri]);
      const out = join(folder, 'second.raw');
      await mustRun('nbdcopy', [target.uri, out]);
      expect(Buffer.compare(await readFile(out), await readFile(image))).toBe(0);
    });

    itWithTools(
      ['nbdcopy', 'nbdinfo', 'nbdkit', 'qemu-io'],
      "nbdkit's sparse-random finds every byte as it gave it, and one that changed",
      async () => {
        const disk = await factory.create(64 * MiB);
        const oracle = [
          '[',
          'nbdkit',
          '--exit-with-parent',
          'sparse-random',
          '64M',
          'seed=7',
          'percent=40',
          ']',
        ];
        await mustRun('nbdcopy', ['--', ...oracle, disk.uri]);
        await mustRun('nbdcopy', ['--', disk.uri, ...oracle]);
        const map = await mustRun('nbdinfo', ['--map', '--totals', disk.uri]);
        expect(map).toMatch(/hole,zero/);
        await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -z 0 64M', disk.uri]);
        expect((await runTool('nbdcopy', ['--', disk.uri, ...oracle])).code).not.toBe(0);
      },
    );

    itWithTools(
      ['nbdkit', 'nbdinfo', 'nbdcopy'],
      "nbdkit's nbd plugin passes a disk on to other clients",
      async () => {
        const bytes = 8 * MiB;
        const disk = await factory.create(bytes);
        const image = await imageFile(bytes);
        await mustRun('nbdcopy', [image, disk.uri]);
        const out = join(folder, 'through-nbdkit.raw');
        const run = `nbdinfo --size "$uri" && nbdcopy --connections=4 "$uri" "${out}"`;
        const printed = await mustRun('nbdkit', ['-U', '-', 'nbd', `uri=${disk.uri}`, '--run', run]);
        expect(printed.trim()).toBe(String(bytes));
        expect(Buffer.compare(await readFile(out), await readFile(image))).toBe(0);
        // The checkwrite filter fails every write that would change a byte: copying the same image changes none.
        await mustRun('nbdkit', [
          '-U',
          '-',
          '--filter=checkwrite',
          'nbd',
          `uri=${disk.uri}`,
          '--run',
          `nbdcopy "${image}" "$uri"`,
        ]);
      },
    );

    itWithTools(['qemu-img'], 'qemu-img describes, maps, compares and converts', async () => {
      const bytes = 24 * MiB + 512;
      const disk = await factory.create(bytes);
      const image = await imageFile(bytes);
      await mustRun('qemu-img', [
        'convert',
        '-n',
        '-W',
        '-m',
        '8',
        '-f',
        'raw',
        '-O',
        'raw',
        image,
        disk.uri,
      ]);
      const info = JSON.parse(
        await mustRun('qemu-img', ['info', '--output=json', '-f', 'raw', disk.uri]),
      ) as object;
      expect(info).toMatchObject({ 'virtual-size': bytes, 'format': 'raw' });
      const map = JSON.parse(await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', disk.uri])) as {
        zero: boolean;
        length: number;
      }[];
      expect(map.reduce((sum, extent) => sum + extent.length, 0)).toBe(bytes);
      expect(map.some((extent) => extent.zero) && map.some((extent) => !extent.zero)).toBe(true);
      await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, disk.uri]);
      const qcow = join(folder, 'out.qcow2');
      await mustRun('qemu-img', ['convert', '-m', '8', '-f', 'raw', '-O', 'qcow2', disk.tcpUri, qcow]);
      await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', image, qcow]);
      await mustRun('qemu-io', ['-f', 'raw', '-c', `write -P 9 ${bytes - 1} 1`, disk.uri]);
      expect((await runTool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, disk.uri])).code).toBe(
        1,
      );
    });

    itWithTools(['qemu-img'], 'qemu-img bench reads and writes with many requests in flight', async () => {
      const disk = await factory.create(64 * MiB);
      await mustRun('qemu-img', [
        'bench',
        '-c',
        '1000',
        '-d',
        '32',
        '-s',
        '4096',
        '-f',
        'raw',
        '-t',
        'none',
        disk.uri,
      ]);
      const write = [
        'bench',
        '-w',
        '-c',
        '300',
        '-d',
        '16',
        '-s',
        '65536',
        '--flush-interval=50',
        '-f',
        'raw',
        disk.uri,
      ];
      await mustRun('qemu-img', write);
    });

    itWithTools(
      ['qemu-io'],
      'qemu-io finds the patterns that it wrote: FUA, zeros, discard, unaligned',
      async () => {
        const disk = await factory.create(16 * MiB);
        const commands = [
          'write -P 0x5a 0 1M',
          'read -P 0x5a 0 1M',
          'write -f -P 7 511 1025',
          'read -P 7 511 1025',
          'read -P 0x5a 0 511',
          'read -P 0x5a 1536 4096',
          'write -z -u 65536 65536',
          'read -P 0 65536 65536',
          'write -z -f 3 5',
          'read -P 0 3 5',
          'discard 131072 131072',
          'read -P 0 131072 131072',
          'read -P 0x5a 262144 4096',
          'write -P 3 16777215 1',
          'read -P 3 16777215 1',
          'write -P 4 4095 2',
          'read -P 4 4095 2',
          'aio_write -P 8 4M 2M',
          'aio_flush',
          'read -P 8 4M 2M',
          'flush',
        ];
        const printed = await mustRun('qemu-io', [
          '-f',
          'raw',
          ...commands.flatMap((command) => ['-c', command]),
          disk.uri,
        ]);
        expect(printed).not.toMatch(/failed|error/i);
        const past = await runTool('qemu-io', ['-f', 'raw', '-c', 'write 16M 512', disk.uri]);
        expect(past.code).not.toBe(0);
      },
    );

    itWithTools(
      [`qemu-io${EXTENDED_QEMU}`, 'qemu-img'],
      'qemu-io zeroes 40 GiB of a disk at once, and qemu-img sees what is left',
      async () => {
        const disk = await factory.create(64 * GiB);
        const commands = [
          'write -P 1 0 1M',
          'write -P 2 30G 1M',
          'write -P 3 50G 64k',
          'write -z -n 512k 40G',
          'read -P 0 30G 1M',
          'read -P 0 512k 512k',
          'read -P 1 0 512k',
          'flush',
        ];
        const io = ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), disk.uri];
        expect(await mustRun('qemu-io', io)).not.toMatch(/failed|error/i);
        const map = await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', disk.uri]);
        const extents = JSON.parse(map) as { start: number; length: number; data: boolean }[];
        expect(extents.map(({ start, length, data }) => [start, length, data])).toEqual([
          [0, MiB / 2, true],
          [MiB / 2, 50 * GiB - MiB / 2, false],
          [50 * GiB, 65_536, true],
          [50 * GiB + 65_536, 14 * GiB - 65_536, false],
        ]);
      },
    );

    itWithTools(['qemu-nbd'], 'qemu-nbd -L understands flags, block sizes and contexts', async () => {
      const disk = await factory.create(4 * MiB);
      const list = await mustRun('qemu-nbd', ['-L', '-k', disk.socket]);
      const of = list.slice(list.indexOf(`export: '${disk.exportName}'`)).split(/\n export: /)[0]!;
      expect(field(of, 'size')).toBe(String(4 * MiB));
      const flags = field(of, 'flags');
      for (const flag of ['flush', 'fua', 'trim', 'zeroes', 'df', 'multi', 'cache', 'fast-zero']) {
        expect(flags).toContain(flag);
      }
      expect(flags).not.toContain('readonly');
      expect(field(of, 'min block')).toBe('1');
      expect(field(of, 'max block')).toBe(String(32 * MiB));
      expect(of).toContain('base:allocation');
    });

    for (const [pattern, extra] of [
      ['randrw', ['--bs=4k', '--iodepth=32']],
      ['randwrite', ['--bsrange=512-96k', '--bs_unaligned=1', '--iodepth=16']],
      ['write', ['--bs=1M', '--iodepth=4', '--fsync=8']],
    ] as const) {
      itWithTools(['fio'], `fio verifies what it wrote: ${pattern} ${extra.join(' ')}`, async () => {
        const disk = await factory.create(32 * MiB);
        const verify = ['--verify=crc32c', '--verify_fatal=1', '--verify_dump=0', '--randseed=1', '--thread'];
        const size = ['--size=32M', '--io_size=16M'];
        const args = [
          '--name=v',
          '--ioengine=nbd',
          `--uri=${disk.uri}`,
          `--rw=${pattern}`,
          ...extra,
          ...size,
          ...verify,
        ];
        const printed = await mustRun('fio', [...args, '--output-format=json'], { cwd: folder });
        const result = JSON.parse(printed.slice(printed.indexOf('{'))) as {
          jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[];
        };
        expect(result.jobs[0]!.error).toBe(0);
        expect(result.jobs[0]!.write.total_ios).toBeGreaterThan(0);
        expect(result.jobs[0]!.read.total_ios).toBeGreaterThan(0);
      });
    }

    itWithTools(['nbdsh'], 'nbdsh: written on A, flushed on C, read on B', async () => {
      const disk = await factory.create(16 * MiB);
      const script = [
        'import nbd, os',
        'def connect():',
        '    h = nbd.NBD()',
        '    h.add_meta_context("base:allocation")',
        '    h.connect_uri(os.environ["URI"])',
        '    return h',
        'a, b, c = connect(), connect(), connect()',
        'assert a.can_multi_conn()',
        'for i in range(200):',
        '    data = bytes([i % 255 + 1]) * (4096 + i)',
        '    offset = i * 9000 + 1',
        '    a.pwrite(data, offset)',
        '    c.flush()',
        '    assert b.pread(len(data), offset) == data, i',
        '    b.zero(100, offset + 50, nbd.CMD_FLAG_FUA)',
        '    assert a.pread(100, offset + 50) == bytes(100), i',
        'try:',
        '    a.pread(512, 16 * 1024 * 1024 - 511)',
        '    assert False, "read past the end"',
        'except nbd.Error as e:',
        '    assert e.errno == "EINVAL", e.errno',
        'a.set_strict_mode(0)',
        'try:',
        '    a.pwrite(bytes(512), 16 * 1024 * 1024 - 511)',
        '    assert False, "write past the end"',
        'except nbd.Error as e:',
        '    assert e.errno == "ENOSPC", e.errno',
        'seen = []',
        'b.block_status(16 * 1024 * 1024, 0, lambda name, offset, extents, err: seen.append((name, offset, extents)))',
        'assert seen[0][0] == "base:allocation" and len(seen[0][2]) > 2',
        'buf = []',
        'b.pread_structured(65536, 8 * 1024 * 1024, lambda data, offset, status, err: buf.append((len(data), status)))',
        'assert buf == [(65536, nbd.READ_HOLE)], buf',
        'for h in (a, b, c): h.shutdown()',
        'print("all is well")',
      ].join('\n');
      // The bindings belong to the system's Python, whatever other one comes first on the PATH.
      const env = { PATH: `/usr/bin:${process.env['PATH'] ?? ''}`, URI: disk.uri };
      expect(await mustRun('nbdsh', ['-n', '-c', script], { env })).toContain('all is well');
    });
  });
}
