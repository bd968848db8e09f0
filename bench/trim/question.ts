/** What does it cost to give back a whole disk, and to make a file system that gives back first? */
import type { Question } from '../harness/bench.ts';
import { Pando } from '../harness/pando.ts';
import { makingFileSystems } from './file-system.ts';
import { trimmingDisks } from './whole-disk.ts';

export const question: Question = {
  name: 'trim',
  title: 'TRIM of whole disks, and mkfs.ext4 with discard',

  async run(bench) {
    const folder = await bench.folder('trim');
    const pando = await Pando.start(bench, { folder });
    try {
      return [...(await trimmingDisks(bench, pando)), ...(await makingFileSystems(bench, folder, pando))];
    } finally {
      await pando.stop();
    }
  },
};
