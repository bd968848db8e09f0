/** How long do a thousand clones take, at once and one by one? */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import { syncDisk } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { run, timed } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Side } from '../harness/rounds.ts';
import { percentile } from '../harness/statistics.ts';
import { TimedRequests } from '../harness/timed-requests.ts';

const SIZES = { full: { clones: 1000, warmUp: 50 }, smoke: { clones: 5, warmUp: 1 } } as const;

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
  title: 'A thousand clones of one disk, at once and one by one',

  async run(bench) {
    const { clones, warmUp } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const { prefix } = bench.pin;
    const image = await bench.image();
    const folder = await bench.folder('thousand-clones');
    const pando = await Pando.start(bench, { folder });
    const client = new TimedRequests(pando);
    const oneByOne = async (count: number, name: string): Promise<number[]> => {
      const milliseconds: number[] = [];
      for (let index = 0; index < count; index++) {
        milliseconds.push(await client.clone('golden', `${name}-${index}`));
      }
      return milliseconds;
    };
    try {
      await pando.upload(image.path, 'golden');
      await pando.settle();
      // The first ones find code that is not compiled yet.
      await oneByOne(warmUp, 'warm-up');
      const sides: Side[] = [
        {
          name: 'pando',
          run: async (round) => {
            const request = await client.post('/vms/golden/clone', { name: `rest-${round}`, count: clones });
            const args = ['--count', String(clones), '--json'];
            const command = await pando.timedCli('vm', 'clone', 'golden', `cli-${round}`, ...args);
            const milliseconds = await oneByOne(clones, `one-${round}`);
            await pando.settle();
            const [p50, p99] = [percentile(milliseconds, 0.5), percentile(milliseconds, 0.99)];
            return { request: request / 1000, command, p50, p99 };
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
            const args = ['-c', CREATE_ALL, 'sh', base, target, String(clones)];
            const seconds = await timed('sh', args, { prefix });
            await rm(target, { recursive: true });
            await syncDisk(folder);
            return { seconds, mean: (seconds * 1000) / clones };
          },
        });
      }
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const shared = { question: 'thousand-clones', better: 'less', side: 'pando' } as const;
      return sides.slice(1).flatMap(({ name: against }) => [
        compare(samples, {
          ...{ ...shared, against, what: `${clones} clones, one request`, unit: 's' },
          ...{ metric: 'request', againstMetric: 'seconds', target: { row: '11', ratio: 1 / 20 } },
        }),
        compare(samples, {
          ...{ ...shared, against, what: `${clones} clones, one command`, unit: 's' },
          ...{ metric: 'command', againstMetric: 'seconds' },
        }),
        compare(samples, {
          ...{ ...shared, against, what: 'one by one, p99 against the mean', unit: 'ms' },
          ...{ metric: 'p99', againstMetric: 'mean', target: { row: '11', ratio: 1 / 2 } },
        }),
      ]);
    } finally {
      client.close();
      await pando.stop();
    }
  },
};
