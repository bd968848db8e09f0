/** How fast is a fresh clone written to, at random? */
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import { cloneSides } from '../harness/clones.ts';
import { cpuTime } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Target } from '../harness/rounds.ts';

const SIZES = { full: { seconds: 10 }, smoke: { seconds: 0.05 } } as const;
const TARGETS: Readonly<Record<string, Target>> = { 'qemu-nbd linked qcow2': { row: '3', ratio: 5 } };

export const question: Question = {
  name: 'random-writes',
  title: 'Random 4 KiB writes, depth 32, onto a fresh clone',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { seconds } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('random-writes');
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'));
    const pando = await Pando.start(bench, { folder });
    try {
      const load = { rw: 'randwrite', depth: 32, sizeBytes: disk.sizeBytes, seconds } as const;
      const sides = await cloneSides(bench, folder, pando, disk.path, { count: 1, load });
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const peers = sides.slice(1).map(({ name }) => name);
      const shared = { question: 'random-writes', side: 'pando' } as const;
      const speed = { what: `first ${seconds} s`, unit: '1/s', better: 'more', metric: 'iops' } as const;
      return [
        ...compareEach(samples, { ...shared, ...speed }, peers, TARGETS),
        ...compareEach(samples, { ...shared, ...cpuTime(speed.what) }, peers),
      ];
    } finally {
      await pando.stop();
    }
  },
};
