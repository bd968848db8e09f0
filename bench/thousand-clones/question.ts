/** How long do a thousand clones take? */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import { Pando } from '../harness/pando.ts';
import { run, timed } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Side } from '../harness/rounds.ts';

/** In one shell, so that nothing but qemu-img itself is started a thousand times. */
const CREATE_ALL = `
set -eu
i=0
while [ "$i" -lt "$3" ]; do
  qemu-img create -q -f qcow2 -F qcow2 -b "$1" "$2/$i.qcow2"
  i=$((i + 1))
done
`;

export const question: Question = {
  name: 'thousand-clones',
  title: 'A thousand clones of one disk',

  async run(bench) {
    const { clones, rounds } = bench.scale;
    const image = await bench.image();
    const folder = await bench.folder('thousand-clones');
    const pando = await Pando.start(bench, { folder });
    try {
      await pando.cli('vm', 'import', image.path, '--name', 'golden', '--json');
      const sides: Side[] = [
        {
          name: 'pando',
          run: async (round) => {
            const started = performance.now();
            await pando.rest.must('POST', '/vms/golden/clone', { name: `rest-${round}`, count: clones });
            const request = (performance.now() - started) / 1000;
            const args = ['--count', String(clones), '--json'];
            return {
              request,
              command: await pando.timedCli('vm', 'clone', 'golden', `cli-${round}`, ...args),
            };
          },
        },
      ];
      if (bench.has('qemu-img')) {
        const base = join(folder, 'golden.qcow2');
        await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', image.path, base]);
        sides.push({
          name: `${clones} × qemu-img create -b`,
          run: async (round) => {
            const target = join(folder, `clones-${round}`);
            await mkdir(target);
            const seconds = await timed('sh', ['-c', CREATE_ALL, 'sh', base, target, String(clones)]);
            await rm(target, { recursive: true });
            return { seconds };
          },
        });
      }
      const samples = await alternate(sides, rounds, bench.say);
      const shared = { question: 'thousand-clones', unit: 's', better: 'less', side: 'pando' } as const;
      return sides.slice(1).flatMap(({ name: against }) => [
        compare(samples, {
          ...{ ...shared, against, what: `${clones} clones, one request` },
          ...{ metric: 'request', againstMetric: 'seconds' },
        }),
        compare(samples, {
          ...{ ...shared, against, what: `${clones} clones, one command` },
          ...{ metric: 'command', againstMetric: 'seconds' },
        }),
      ]);
    } finally {
      await pando.stop();
    }
  },
};
