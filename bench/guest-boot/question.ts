/** How long does a guest take from power-on to its prompt, when nothing of its disk is warm? */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import { coldPando } from '../harness/cold-pando.ts';
import { dropAll, syncDisk } from '../harness/page-cache.ts';
import { qemuNbd } from '../harness/peers.ts';
import { readBytes, run, ticksOf } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';
import { debianGuest, smallestGuest } from './guests.ts';

const PANDO = 'pando, clone';
const RAW = 'qemu-nbd raw';
const TICKS_A_SECOND = 100;

export const question: Question = {
  name: 'guest-boot',
  title: 'Cold boot of a guest to its prompt',

  async run(bench) {
    if (!bench.has('qemu-system-x86_64', 'setpriv', 'dd')) return [];
    const folder = await bench.folder('guest-boot');
    const { disk, boot } = bench.isSmoke ? await smallestGuest(bench, folder) : await debianGuest();
    const measure = async (uri: string, server: number): Promise<Sample> => {
      const ticks = async (): Promise<number> => (await ticksOf(server)) ?? NaN;
      const before = { ticks: await ticks(), bytes: await readBytes(server) };
      const seconds = await boot(uri);
      return {
        seconds,
        serverCpuSeconds: ((await ticks()) - before.ticks) / TICKS_A_SECOND,
        diskBytes: (await readBytes(server)) - before.bytes,
      };
    };

    await using cold = await coldPando(bench, folder, async (pando) => {
      await pando.upload(disk, 'golden');
      await pando.rest.must('POST', '/vms/golden/clone', { name: 'web', count: bench.scale.rounds });
    });
    const sides: Side[] = [
      {
        name: PANDO,
        run: (round) => cold.run((pando) => measure(pando.uri(`web-${round + 1}/disk0`), pando.pid)),
      },
    ];
    if (bench.has('qemu-nbd')) {
      sides.push({
        name: RAW,
        run: async () => {
          const copy = join(folder, 'copy.raw');
          await run('cp', ['--sparse=always', disk, copy]);
          await dropAll(copy);
          const { uri, process } = await qemuNbd(bench, folder, copy, { format: 'raw' });
          try {
            return await measure(uri, process.pid);
          } finally {
            await process.stop();
            await rm(copy);
            await syncDisk(folder);
          }
        },
      });
    }
    const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
    return sides.slice(1).map(({ name: against }): Row =>
      compare(samples, {
        ...{ question: 'guest-boot', what: 'seconds to the prompt', unit: 's', better: 'less' },
        ...{ metric: 'seconds', side: PANDO, against, target: { row: '20', ratio: 1.05 } },
      }),
    );
  },
};
