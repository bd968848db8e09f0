/** What does it cost when many clones of one image read the same at once, and nothing is warm? */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { coldPando } from '../harness/cold-pando.ts';
import { fromPando, fromQemuNbd, measure } from '../harness/exports.ts';
import type { Load, Served } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { dropAll, syncDisk } from '../harness/page-cache.ts';
import { linkedQcow2, qcow2Of } from '../harness/peers.ts';
import { readBytes } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';

const MiB = 1024 * 1024;
const SIZES = {
  full: { clones: 16, bytes: 256 * MiB },
  smoke: { clones: 3, bytes: MiB },
} as const;
/** What the kernel of a guest asks for when it reads ahead in a file that is being started. */
const BLOCK_BYTES = 64 * 1024;
const DEPTH = 4;

/** One run of fio on all exports at once, and what the servers read from the disk meanwhile. */
async function storm(bench: Bench, served: Served, load: Load, round: number): Promise<Sample> {
  const readSoFar = async (): Promise<number> => {
    let sum = 0;
    for (const pid of served.pids) sum += await readBytes(pid);
    return sum;
  };
  const before = await readSoFar();
  const { seconds, cpuMicros, p99 } = await measure(bench, served, load, round);
  // Nothing at all is warm for whom nothing was dropped: on tmpfs, say.
  const diskBytes = Math.max((await readSoFar()) - before, 1);
  return { seconds, diskBytes, cpuMicros, p99 };
}

export const question: Question = {
  name: 'boot-storm',
  title: 'Many clones of one image read the same at once, started cold',

  async run(bench) {
    if (!bench.has('fio', 'dd')) return [];
    const { clones, bytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('boot-storm');
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'), bytes);
    const load: Load = { rw: 'read', blockBytes: BLOCK_BYTES, depth: DEPTH, sizeBytes: disk.sizeBytes };
    const numbers = Array.from({ length: clones }, (_, index) => index + 1);

    await using cold = await coldPando(bench, folder, async (pando) => {
      await pando.upload(disk.path, 'golden');
      await pando.rest.must('POST', '/vms/golden/clone', { name: 'web', count: clones });
    });
    const onPando = (name: string, exports: readonly string[]): Side => ({
      name,
      run: (round) => cold.run((pando) => storm(bench, fromPando(pando, exports), load, round)),
    });
    const all = `pando, ${clones} clones`;
    const one = 'pando, one clone';
    const linked = `${clones} linked qcow2`;
    const sides = [
      onPando(
        all,
        numbers.map((number) => `web-${number}/disk0`),
      ),
      onPando(one, ['web-1/disk0']),
    ];
    if (bench.has('qemu-nbd', 'qemu-img')) {
      const golden = join(folder, 'golden.qcow2');
      await qcow2Of(disk.path, golden);
      const files = numbers.map((number) => join(folder, `web-${number}.qcow2`));
      for (const file of files) await linkedQcow2(golden, file);
      sides.push({
        name: linked,
        run: async (round) => {
          for (const file of [golden, ...files]) await dropAll(file);
          const served = await fromQemuNbd(bench, folder, files, linked);
          try {
            return await storm(bench, served, load, round);
          } finally {
            await served.stop();
          }
        },
      });
    }
    await rm(disk.path);
    await syncDisk(folder);
    const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
    const shared = { question: 'boot-storm', better: 'less', side: all } as const;
    const seconds = { ...shared, what: 'seconds', unit: 's', metric: 'seconds' } as const;
    const rows: Row[] = [
      compare(samples, {
        ...{ ...shared, what: 'bytes read from disk', unit: 'bytes', metric: 'diskBytes', against: one },
        target: { row: '18', ratio: 1.1 },
      }),
      compare(samples, { ...seconds, against: one }),
    ];
    if (samples.has(linked)) {
      rows.push(compare(samples, { ...seconds, against: linked, target: { row: '18', ratio: 0.5 } }));
    }
    return rows;
  },
};
