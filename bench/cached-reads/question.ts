/** How fast are random 4 KiB reads of what is in the cache? */
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import { cpuTime, fromNbdkitMemory, fromPando, fromQemuNbd } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { qcow2Of } from '../harness/peers.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Target } from '../harness/rounds.ts';
import { WORKING_SET_BYTES, cachedReads } from './load.ts';

const NBDKIT = 'nbdkit memory';
const QEMU = 'qemu-nbd qcow2';
const TARGETS: Readonly<Record<string, Target>> = {
  [NBDKIT]: { row: '1', ratio: 1 },
  [QEMU]: { row: '1', ratio: 5 },
};

export const question: Question = {
  name: 'cached-reads',
  title: 'Random 4 KiB reads, depth 32, of what is in the cache',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('cached-reads');
    const sizeBytes = WORKING_SET_BYTES[bench.isSmoke ? 'smoke' : 'full'];
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'), sizeBytes);
    const pando = await Pando.start(bench, { folder });
    const peers: Served[] = [];
    try {
      await pando.upload(disk.path, 'disk');
      if (bench.has('nbdkit', 'qemu-img')) {
        peers.push(await fromNbdkitMemory(bench, folder, disk.path, disk.sizeBytes));
      }
      if (bench.has('qemu-nbd', 'qemu-img')) {
        // Two files: one image may not be open twice.
        for (const [name, aio] of [[QEMU], [`${QEMU}, threads`, 'threads']] as const) {
          const file = join(folder, `disk-${aio ?? 'best'}.qcow2`);
          await qcow2Of(disk.path, file);
          peers.push(await fromQemuNbd(bench, folder, [file], name, aio));
        }
      }
      await pando.settle();
      const served = [fromPando(pando, ['disk/disk0']), ...peers];
      const sides = served.map((one) => cachedReads(bench, one, disk.sizeBytes));
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const names = peers.map(({ name }) => name);
      const shared = { question: 'cached-reads', side: 'pando' } as const;
      const speed = { what: 'random read, depth 32', unit: '1/s', better: 'more', metric: 'iops' } as const;
      return [
        ...compareEach(samples, { ...shared, ...speed }, names, TARGETS),
        ...compareEach(samples, { ...shared, ...cpuTime(speed.what) }, names),
      ];
    } finally {
      for (const peer of peers) await peer.stop();
      await pando.stop();
    }
  },
};
