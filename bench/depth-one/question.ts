/** How long does one request take when there is no other? */
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { fromPando, fromQemuNbd, measure, warmUp } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { syncDisk } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { qcow2Of } from '../harness/peers.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Sample, Side } from '../harness/rounds.ts';

const MiB = 1024 * 1024;
const SIZES = {
  full: { workingSetBytes: 128 * MiB, seconds: 2 },
  smoke: { workingSetBytes: MiB, seconds: 0.05 },
} as const;
const QEMU = 'qemu-nbd qcow2';

const ROWS = [
  { what: 'read, p50', metric: 'readP50', ratio: 1 },
  { what: 'write, p50', metric: 'writeP50', ratio: 1 },
  { what: 'write and flush, p50', metric: 'flushedP50', ratio: 1.1 },
] as const;

const COSTS = [
  { what: 'read: processor time of the server', metric: 'readCpuMicros' },
  { what: 'write: processor time of the server', metric: 'writeCpuMicros' },
  { what: 'write and flush: processor time of the server', metric: 'flushedCpuMicros' },
] as const;

function side(bench: Bench, folder: string, served: Served, sizeBytes: number): Side {
  const { seconds } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const micros = (milliseconds: number): number => milliseconds * 1000;
  const quiet = async (): Promise<void> => {
    await served.settle();
    await syncDisk(folder);
  };
  return {
    name: served.name,
    run: async (round): Promise<Sample> => {
      const shared = { depth: 1, sizeBytes } as const;
      const timed = { ...shared, seconds };
      await warmUp(bench, served, { ...shared, rw: 'read', blockBytes: MiB }, round);
      const read = await measure(bench, served, { ...timed, rw: 'randread' }, round);
      const write = await measure(bench, served, { ...timed, rw: 'randwrite' }, round);
      await quiet();
      const flushed = await measure(bench, served, { ...timed, rw: 'randwrite', flushEvery: 1 }, round);
      await quiet();
      return {
        ...{ readP50: micros(read.p50), writeP50: micros(write.p50) },
        flushedP50: micros(flushed.p50 + flushed.flushP50),
        ...{ readCpuMicros: read.cpuMicros, writeCpuMicros: write.cpuMicros },
        flushedCpuMicros: flushed.cpuMicros,
      };
    },
  };
}

export const question: Question = {
  name: 'depth-one',
  title: 'Latency of 4 KiB requests that come one by one',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { workingSetBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('depth-one');
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'), workingSetBytes);
    const pando = await Pando.start(bench, { folder });
    const served: Served[] = [fromPando(pando, ['disk/disk0'])];
    try {
      await pando.upload(disk.path, 'disk');
      if (bench.has('qemu-nbd', 'qemu-img')) {
        const file = join(folder, 'disk.qcow2');
        await qcow2Of(disk.path, file);
        served.push(await fromQemuNbd(bench, folder, [file], QEMU));
      }
      await pando.settle();
      await syncDisk(folder);
      const sides = served.map((one) => side(bench, folder, one, disk.sizeBytes));
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const peers = served.slice(1).map(({ name }) => name);
      const shared = { question: 'depth-one', side: 'pando', unit: 'µs', better: 'less' } as const;
      return [
        ...ROWS.flatMap(({ ratio, ...row }) =>
          compareEach(samples, { ...shared, ...row }, peers, { [QEMU]: { row: '5', ratio } }),
        ),
        ...COSTS.flatMap((row) => compareEach(samples, { ...shared, ...row }, peers)),
      ];
    } finally {
      for (const { stop } of served) await stop();
      await pando.stop();
    }
  },
};
