/** Clones of a VM that is written to, against clones of one that nobody uses. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../harness/bench.ts';
import { fioLoad } from '../harness/fio.ts';
import { packData } from '../harness/images.ts';
import { syncDisk } from '../harness/page-cache.ts';
import type { Pando } from '../harness/pando.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';
import type { TimedRequests } from '../harness/timed-requests.ts';
import { latencies, warmUp } from './sides.ts';

/** Clones and pauses together take about as long as the load of row 3 is looked at: ten seconds. */
const SIZES = {
  full: { clones: 250, warmUp: 50, pauseMs: 20, loadStartsMs: 500 },
  smoke: { clones: 3, warmUp: 1, pauseMs: 1, loadStartsMs: 100 },
} as const;
const DEPTH = 32;
const LOAD_SECONDS_MAX = 600;
const IDLE = 'idle';
const LOADED = 'under load';

export async function clonesUnderLoad(
  bench: Bench,
  folder: string,
  pando: Pando,
  client: TimedRequests,
): Promise<Row[]> {
  if (!bench.has('fio')) return [];
  const sizes = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const disk = await packData(await bench.image(), join(folder, 'disk.raw'));
  await pando.upload(disk.path, 'golden');
  await pando.settle();
  await warmUp(pando, client, 'golden', sizes.warmUp);
  /** Clones of a clone that nothing was written to before. */
  const measure = async (source: string): Promise<Sample> => {
    const milliseconds: number[] = [];
    for (let index = 0; index < sizes.clones; index++) {
      milliseconds.push(await client.clone(source, `${source}-${index}`));
      await sleep(sizes.pauseMs);
    }
    return latencies(milliseconds);
  };
  const sides: Side[] = [
    {
      name: IDLE,
      run: async (round) => {
        const source = `idle-${round}`;
        await pando.rest.must('POST', '/vms/golden/clone', { name: source });
        return measure(source);
      },
    },
    {
      name: LOADED,
      run: async (round) => {
        const source = `load-${round}`;
        await pando.rest.must('POST', '/vms/golden/clone', { name: source });
        const load = fioLoad(
          {
            ...{ uris: [pando.uri(`${source}/disk0`)], rw: 'randwrite', depth: DEPTH },
            ...{ sizeBytes: disk.sizeBytes, seconds: LOAD_SECONDS_MAX, seed: bench.seed + round },
          },
          bench.pin,
        );
        try {
          await sleep(sizes.loadStartsMs);
          const sample = await measure(source);
          load.mustRun();
          return sample;
        } finally {
          await load.stop();
          await pando.settle();
          await syncDisk(folder);
        }
      },
    },
  ];
  const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
  const shared = { question: 'clone-latency', unit: 'ms', better: 'less' } as const;
  return [
    compare(samples, {
      ...{ ...shared, what: 'clone, p99', metric: 'p99', side: LOADED, against: IDLE },
      target: { row: '12', ratio: 3 },
    }),
    compare(samples, { ...shared, what: 'clone, p50', metric: 'p50', side: LOADED, against: IDLE }),
  ];
}
