/** mkfs.ext4 on thin disks of 2 TiB: it trims all of it first, and then writes little. */
import { constants } from 'node:fs';
import { access, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../harness/bench.ts';
import { syncDisk } from '../harness/page-cache.ts';
import type { Pando } from '../harness/pando.ts';
import { qemuNbd, thinQcow2 } from '../harness/peers.ts';
import { background, run, timed } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Side } from '../harness/rounds.ts';

const SIZES = { full: { diskBytes: 2 ** 41 }, smoke: { diskBytes: 2 ** 30 } } as const;
const MOUNT_MS_MAX = 10_000;

const THIN = 'qemu-nbd thin qcow2';
const DEAF = 'qemu-nbd that ignores TRIM';

export async function makingFileSystems(bench: Bench, folder: string, pando: Pando): Promise<readonly Row[]> {
  if (!bench.has('qemu-nbd', 'qemu-img', 'nbdfuse', 'fusermount3', 'mkfs.ext4')) return [];
  if (!(await hasFuse())) {
    bench.say('  /dev/fuse is not for us; rows about mkfs.ext4 are left out');
    return [];
  }
  const sides = [
    onPando(bench, folder, pando),
    onQemu(bench, folder, THIN, 'unmap'),
    ...(bench.isSmoke ? [] : [onQemu(bench, folder, DEAF, 'ignore')]),
  ];
  const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
  const shared = { question: 'trim', what: 'mkfs.ext4 with discard', side: 'pando', unit: 's' } as const;
  return sides.slice(1).map(({ name: against }) =>
    compare(samples, {
      ...{ ...shared, better: 'less', metric: 'seconds', against },
      ...(against === THIN ? { target: { row: '19', ratio: 0.5 } } : {}),
    }),
  );
}

function onPando(bench: Bench, folder: string, pando: Pando): Side {
  const { diskBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  return {
    name: 'pando',
    run: async () => {
      const disks = [{ name: 'disk0', sizeBytes: diskBytes }];
      await pando.rest.must('POST', '/vms', { name: 'thin', disks });
      const seconds = await makeFileSystem(bench, join(folder, 'fuse'), pando.uri('thin/disk0'));
      await pando.rest.must('DELETE', '/vms/thin?force=true');
      await pando.settle();
      return { seconds };
    },
  };
}

function onQemu(bench: Bench, folder: string, name: string, discard: 'ignore' | 'unmap'): Side {
  const { diskBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  return {
    name,
    run: async () => {
      const file = join(folder, `${discard}.qcow2`);
      await thinQcow2(diskBytes, file);
      const { uri, process } = await qemuNbd(bench, folder, file, { discard });
      try {
        return { seconds: await makeFileSystem(bench, join(folder, `fuse-${discard}`), uri) };
      } finally {
        await process.stop();
        await rm(file);
        if (!bench.isSmoke) await syncDisk(folder);
      }
    },
  };
}

/** Seconds that mkfs.ext4 takes on an export that nbdfuse makes `file` of; it ends with a sync. */
async function makeFileSystem(bench: Bench, file: string, uri: string): Promise<number> {
  const { prefix } = bench.pin;
  await writeFile(file, '');
  const fuse = background('nbdfuse', ['--connections', '1', file, uri], { prefix });
  try {
    const deadline = performance.now() + MOUNT_MS_MAX;
    while ((await stat(file)).size === 0) {
      fuse.mustRun();
      if (performance.now() > deadline) throw new Error('nbdfuse has no file');
      await sleep(10);
    }
    // Where only root's PATH leads.
    const env = { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
    return await timed('mkfs.ext4', ['-q', '-F', '-E', 'discard', file], { prefix, env });
  } finally {
    await run('fusermount3', ['-u', file]).catch(() => undefined);
    await fuse.stop();
  }
}

function hasFuse(): Promise<boolean> {
  return access('/dev/fuse', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
}
