/** How long does a server take to serve after it was killed, and how much memory? */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Question } from '../harness/bench.ts';
import { Pando } from '../harness/pando.ts';
import { peakBytes, run, ticksOf } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side, Unit } from '../harness/rounds.ts';

const PREPARE = fileURLToPath(new URL('prepare.ts', import.meta.url));
const FEW = 3;

export const question: Question = {
  name: 'start-up',
  title: 'Start of a server that was killed, by volumes and log',

  async run(bench) {
    const { startUpVolumes, startUpLogBytes } = bench.scale;
    const root = await bench.folder('start-up');
    const side = async (name: string, volumes: number, logBytes: number): Promise<Side> => {
      const prepared = join(root, String(volumes) + (logBytes > 0 ? '-full' : ''));
      const args = [prepared, String(volumes), String(logBytes), String(bench.seed)];
      // It kills itself.
      await run('sh', ['-c', '"$0" "$@"; test $? -eq 137', process.execPath, PREPARE, ...args]);
      return { name, run: () => startOn(prepared) };
    };
    const startOn = async (prepared: string): Promise<Sample> => {
      const folder = join(root, 'round');
      await mkdir(folder);
      await run('cp', ['-a', '--reflink=auto', prepared, join(folder, 'data')]);
      const started = performance.now();
      const pando = await Pando.start(bench, { folder });
      try {
        const seconds = (performance.now() - started) / 1000;
        const cpuSeconds = ((await ticksOf(pando.pid)) ?? NaN) / 100;
        const bytes = await peakBytes(pando.pid);
        await pando.settle();
        return { seconds, cpuSeconds, bytes, settledBytes: await peakBytes(pando.pid) };
      } finally {
        await pando.stop();
        await rm(folder, { recursive: true });
      }
    };
    const many = `${startUpVolumes} volumes`;
    const sides = [
      await side('empty store', 0, 0),
      await side(`${many}, log empty`, startUpVolumes, 0),
      await side(`${FEW} volumes, log full`, FEW, startUpLogBytes),
      await side(`${many}, log full`, startUpVolumes, startUpLogBytes),
    ];
    const samples = await alternate(sides, bench.scale.rounds, bench.say);
    const rows: Row[] = [];
    const row = (what: string, unit: Unit, metric: string, side: string, against: string): void =>
      void rows.push(
        compare(samples, { question: 'start-up', better: 'less', what, unit, metric, side, against }),
      );
    const [empty, idle, few, full] = sides.map(({ name }) => name) as [string, string, string, string];
    for (const side of [idle, few, full]) {
      row('until it serves', 's', 'seconds', side, empty);
      row('processor time until then', 's', 'cpuSeconds', side, empty);
      row('peak memory until then', 'bytes', 'bytes', side, empty);
    }
    row('until it serves', 's', 'seconds', full, few);
    row('processor time until then', 's', 'cpuSeconds', full, few);
    row('peak memory, destaged', 'bytes', 'settledBytes', few, empty);
    return rows;
  },
};
