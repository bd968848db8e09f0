/** How much do many disks get written that are all flushed again and again? */
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import { cloneSides } from '../harness/clones.ts';
import { cpuTime } from '../harness/exports.ts';
import type { Load } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Target } from '../harness/rounds.ts';

const MiB = 1024 * 1024;
const SIZES = { full: { diskBytes: 128 * MiB, clones: 8 }, smoke: { diskBytes: MiB, clones: 2 } } as const;
const FLUSH_EVERY = 16;
const TARGETS: Readonly<Record<string, Target>> = { 'qemu-nbd linked qcow2': { row: '6', ratio: 2 } };

export const question: Question = {
  name: 'group-commit',
  title: 'Clones that are written to at once, each with a flush every 16 writes',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { diskBytes, clones } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('group-commit');
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'), diskBytes);
    const pando = await Pando.start(bench, { folder });
    try {
      const load: Load = {
        ...{ rw: 'randwrite', depth: FLUSH_EVERY, flushEvery: FLUSH_EVERY },
        ...{ sizeBytes: disk.sizeBytes, seconds: bench.scale.fioSeconds },
      };
      const sides = await cloneSides(bench, folder, pando, disk.path, { count: clones, load });
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const peers = sides.slice(1).map(({ name }) => name);
      const shared = { question: 'group-commit', side: 'pando' } as const;
      const what = `writes to ${clones} clones at once, all together`;
      const speed = { what, unit: '1/s', better: 'more', metric: 'iops' } as const;
      return [
        ...compareEach(samples, { ...shared, ...speed }, peers, TARGETS),
        ...compareEach(samples, { ...shared, ...cpuTime(what) }, peers),
      ];
    } finally {
      await pando.stop();
    }
  },
};
