/** Does a clone take longer while a client writes to its source? */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Question } from '../harness/bench.ts';
import { fioLoad } from '../harness/fio.ts';
import { packData } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample } from '../harness/rounds.ts';
import { percentile } from '../harness/statistics.ts';

const PAUSE_MS = 20;
const LOAD_SECONDS_MAX = 600;
const LOAD_STARTS_MS = 1_000;
/** Clones whose times nobody counts: the first ones find code that is not compiled yet. */
const WARM_UP = 20;

export const question: Question = {
  name: 'clone-latency',
  title: 'Latency of a clone while its source is written to, against idle',

  async run(bench) {
    const { scale, pin, seed } = bench;
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('clone-latency');
    const disk = await packData(await bench.image(), join(folder, 'disk.raw'), scale.workingSetBytes);
    const pando = await Pando.start(bench, { folder });
    try {
      await pando.cli('vm', 'import', disk.path, '--name', 'source', '--json');
      const clones = async (count: number, prefix: string): Promise<Sample> => {
        const milliseconds: number[] = [];
        for (let index = 0; index < count; index++) {
          const started = performance.now();
          await pando.rest.must('POST', '/vms/source/clone', { name: `${prefix}-${index}` });
          milliseconds.push(performance.now() - started);
          await sleep(PAUSE_MS);
        }
        return { p50: percentile(milliseconds, 0.5), p99: percentile(milliseconds, 0.99) };
      };
      await clones(Math.min(WARM_UP, scale.latencyClones), 'warm-up');
      const sides = [
        { name: 'idle', run: (round: number) => clones(scale.latencyClones, `idle-${round}`) },
        {
          name: 'under load',
          run: async (round: number) => {
            const load = fioLoad(
              {
                ...{ uris: [pando.uri('source/disk0')], rw: 'randwrite', depth: 32, seed: seed + round },
                ...{ sizeBytes: disk.sizeBytes, seconds: LOAD_SECONDS_MAX },
              },
              pin,
            );
            try {
              await sleep(LOAD_STARTS_MS);
              const sample = await clones(scale.latencyClones, `load-${round}`);
              load.mustRun();
              return sample;
            } finally {
              await load.stop();
              await pando.settle();
            }
          },
        },
      ];
      const samples = await alternate(sides, scale.rounds, bench.say);
      return ['p50', 'p99'].map((metric): Row =>
        compare(samples, {
          ...{ question: 'clone-latency', what: `clone, ${metric}`, unit: 'ms', better: 'less' },
          ...{ metric, side: 'under load', against: 'idle' },
        }),
      );
    } finally {
      await pando.stop();
    }
  },
};
