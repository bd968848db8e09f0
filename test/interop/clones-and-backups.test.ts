/** What only a Pando has, as real clients see it: exports of backups, and clones that leave their source alone. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SeededRandom } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { MiB, readExport, sha256 } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun, runTool } from '../support/tools.ts';

const DISK_BYTES = 24 * MiB;
const FIO_JOBS = 4;
const JOB_BYTES = 4 * MiB;

describe('real clients on clones and backups', () => {
  let server: TestServer;
  let folder: string;
  /** The content of VM `golden`, and a file with it. */
  let image: Buffer;
  let imagePath: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pando-interop-'));
    server = await TestServer.start();
    image = Buffer.alloc(DISK_BYTES + 512, 0x5a);
    image.set(new SeededRandom(1).bytes(6 * MiB), MiB - 512);
    image.fill(0, 12 * MiB, 20 * MiB);
    imagePath = join(folder, 'golden.raw');
    await writeFile(imagePath, image);
    await server.rest.must('POST', '/vms', {
      name: 'golden',
      disks: [{ name: 'disk0', sizeBytes: image.length }],
    });
  });

  afterAll(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** fio on a disk, from its own processes to its own regions; fails on the first byte that is not what fio wrote. */
  async function fio(uri: string, jobs: number, more: readonly string[] = []): Promise<number> {
    const args = [
      ...['--name=v', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4k', '--iodepth=32'],
      ...[`--numjobs=${jobs}`, `--size=${JOB_BYTES}`, `--offset_increment=${JOB_BYTES}`],
      ...['--verify=crc32c', '--verify_fatal=1', '--verify_dump=0', '--randseed=7', '--thread'],
      ...['--group_reporting', '--output-format=json', ...more],
    ];
    const printed = await mustRun('fio', args, { cwd: folder });
    const { jobs: results } = JSON.parse(printed.slice(printed.indexOf('{'))) as {
      jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[];
    };
    expect(results[0]!.error).toBe(0);
    expect(results[0]!.read.total_ios).toBe(results[0]!.write.total_ios);
    return results[0]!.write.total_ios;
  }

  itWithTools(
    ['nbdcopy', 'nbdinfo', 'qemu-io', 'fio'],
    'a backup is a read-only export that stays as it is while its VM is overwritten',
    async () => {
      await mustRun('nbdcopy', ['--connections=4', imagePath, server.nbdUri('golden/disk0', 'unix')]);
      await server.rest.must('POST', '/vms/golden/backups', { name: 'b' });
      const uri = server.nbdUri('golden@b/disk0', 'unix');
      const info = JSON.parse(await mustRun('nbdinfo', ['--json', uri])) as { exports: object[] };
      expect(info.exports[0]).toMatchObject({ 'is_read_only': true, 'export-size': image.length });
      expect((await runTool('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 4k', uri])).code).not.toBe(0);

      const out = join(folder, 'backup.raw');
      const writing = fio(server.nbdUri('golden/disk0'), FIO_JOBS, ['--loops=2']);
      for (let i = 0; i < 3; i++) {
        await mustRun('nbdcopy', ['--connections=4', '--requests=32', uri, out]);
        expect(Buffer.compare(await readFile(out), image)).toBe(0);
      }
      expect(await writing).toBeGreaterThan(0);
      await mustRun('nbdcopy', [uri, out]);
      expect(Buffer.compare(await readFile(out), image)).toBe(0);
      expect(sha256(await readExport(server, 'golden/disk0'))).not.toBe(sha256(image));
    },
  );

  itWithTools(['qemu-img', 'nbdcopy'], 'a backup converts to qcow2 and compares as equal', async () => {
    const name = 'convert';
    await server.rest.must('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes: image.length }] });
    await mustRun('nbdcopy', ['--connections=4', imagePath, server.nbdUri(`${name}/disk0`)]);
    await server.rest.must('POST', `/vms/${name}/backups`, { name: 'b' });
    await server.rest.must('DELETE', `/vms/${name}`);
    const uri = server.nbdUri(`${name}@b/disk0`, 'unix');
    const qcow = join(folder, 'backup.qcow2');
    await mustRun('qemu-img', ['convert', '-m', '8', '-W', '-f', 'raw', '-O', 'qcow2', uri, qcow]);
    await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', imagePath, qcow]);
    await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', imagePath, uri]);
  });

  itWithTools(
    ['fio', 'nbdcopy'],
    'four fio jobs at depth 32 verify a clone, and the source does not notice',
    async () => {
      const name = 'source';
      await server.rest.must('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes: image.length }] });
      await mustRun('nbdcopy', ['--connections=4', imagePath, server.nbdUri(`${name}/disk0`)]);
      await server.rest.must('POST', `/vms/${name}/clone`, { name: 'clone' });
      const uri = server.nbdUri('clone/disk0');
      expect(await fio(uri, FIO_JOBS)).toBe((FIO_JOBS * JOB_BYTES) / 4096);
      expect(sha256(await readExport(server, `${name}/disk0`))).toBe(sha256(image));
      // What fio did not write to is still what was cloned.
      const clone = await readExport(server, 'clone/disk0');
      const untouched = FIO_JOBS * JOB_BYTES;
      expect(Buffer.compare(clone.subarray(untouched), image.subarray(untouched))).toBe(0);
      expect(sha256(clone)).not.toBe(sha256(image));
    },
  );

  itWithTools(
    ['qemu-io', 'nbdcopy', 'nbdinfo'],
    'a VM can be deleted at once when its clients have ended, whether they wait for the end of the connection or not',
    async () => {
      for (let round = 0; round < 5; round++) {
        for (const client of ['qemu-io', 'nbdcopy', 'nbdinfo']) {
          const name = `${client}-${round}`;
          await server.rest.must('POST', '/vms', {
            name,
            disks: [{ name: 'disk0', sizeBytes: image.length }],
          });
          const uri = server.nbdUri(`${name}/disk0`, round % 2 === 0 ? 'unix' : 'tcp');
          if (client === 'qemu-io')
            await mustRun(client, ['-f', 'raw', '-c', 'aio_write -P 1 0 1M', '-c', 'aio_write 8M 1M', uri]);
          else if (client === 'nbdcopy') await mustRun(client, ['--connections=4', imagePath, uri]);
          else await mustRun(client, [uri]);
          await server.rest.must('DELETE', `/vms/${name}`);
        }
      }
    },
  );

  itWithTools(
    ['nbdinfo'],
    'nbdinfo lists three hundred clones, each looked at, on one connection',
    async () => {
      await server.rest.must('POST', '/vms', { name: 'many', disks: [{ name: 'disk0', sizeBytes: MiB }] });
      await server.rest.must('POST', '/vms/many/clone', { name: 'one-of-many', count: 300 });
      const printed = await mustRun('nbdinfo', [
        '--list',
        '--json',
        '--no-content',
        server.nbdUri('', 'unix'),
      ]);
      const { exports } = JSON.parse(printed) as {
        exports: { 'export-name': string; 'export-size': number }[];
      };
      const sizes = new Map(exports.map((each) => [each['export-name'], each['export-size']]));
      for (let i = 1; i <= 300; i++) expect(sizes.get(`one-of-many-${i}/disk0`), `clone ${i}`).toBe(MiB);
    },
  );
});
