/** How many bytes reach the disk when the same gibibyte is written over and over again, 4 KiB at a time? */
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { measureWrites } from '../harness/disk-writes.ts';
import { fromPando, fromQemuNbd, measure } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { Pando } from '../harness/pando.ts';
import { allocatedQcow2 } from '../harness/peers.ts';
import { alternate, compare, compareToLimit } from '../harness/rounds.ts';
import type { Row, Side } from '../harness/rounds.ts';

const GiB = 2 ** 30;
const SIZES = {
  full: { hotBytes: GiB, seconds: 30 },
  smoke: { hotBytes: 2 ** 20, seconds: 0.05 },
} as const;

const QEMU = 'qemu-nbd qcow2';

export const question: Question = {
  name: 'hot-rewrites',
  title: 'Random 4 KiB writes within one gibibyte, and the bytes that reach the disk',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { hotBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('hot-rewrites');
    const pando = await Pando.start(bench, { folder });
    const disks: Served[] = [];
    try {
      await pando.rest.must('POST', '/vms', { name: 'hot', disks: [{ name: 'disk0', sizeBytes: hotBytes }] });
      disks.push(fromPando(pando, ['hot/disk0']));
      if (bench.has('qemu-nbd', 'qemu-img')) {
        const file = join(folder, 'disk.qcow2');
        await allocatedQcow2(hotBytes, file);
        disks.push(await fromQemuNbd(bench, folder, [file], QEMU));
      }
      for (const disk of disks) await fill(bench, disk);
      const sides = disks.map((disk) => rewriting(bench, folder, disk));
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const shared = { question: 'hot-rewrites', side: 'pando', better: 'less' } as const;
      const bytes = { what: 'bytes to disk a byte', unit: 'times', metric: 'amplification' } as const;
      const rows: Row[] = [compareToLimit(samples, { ...shared, ...bytes, row: '17', limit: 1.6 })];
      if (sides.length > 1) rows.push(compare(samples, { ...shared, ...bytes, against: QEMU }));
      return rows;
    } finally {
      await Promise.all(disks.map((disk) => disk.stop()));
      await pando.stop();
    }
  },
};

/** What is written over later has to be there. */
async function fill(bench: Bench, disk: Served): Promise<void> {
  const { hotBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  await measure(bench, disk, { rw: 'write', blockBytes: 2 ** 20, depth: 4, sizeBytes: hotBytes }, -1);
  await disk.settle();
}

function rewriting(bench: Bench, folder: string, disk: Served): Side {
  const { hotBytes, seconds } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  return {
    name: disk.name,
    run: async (round) => {
      const load = { rw: 'randwrite', depth: 32, sizeBytes: hotBytes, seconds } as const;
      return measureWrites(bench, folder, disk, load, round);
    },
  };
}
