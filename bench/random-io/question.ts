/** How fast are random 4 KiB reads and writes over NBD? */
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { fio } from '../harness/fio.ts';
import type { FioJob } from '../harness/fio.ts';
import { packData } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { nbdkitMemory, qcow2Of, qemuNbd } from '../harness/peers.ts';
import { onPath, run } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row } from '../harness/rounds.ts';

/** An export to be measured, and how to let its server finish what it does behind its answers. */
interface Target {
  readonly name: string;
  readonly uri: string;
  readonly settle: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

interface Mode {
  readonly what: string;
  readonly rw: 'randread' | 'randwrite';
  readonly depth: number;
  /** Over all data of the image instead of the working set. */
  readonly wide?: boolean;
}

const MODES: readonly Mode[] = [
  { what: 'read, depth 32', rw: 'randread', depth: 32 },
  { what: 'read, depth 1', rw: 'randread', depth: 1 },
  { what: 'read, depth 32, whole image', rw: 'randread', depth: 32, wide: true },
  { what: 'write, depth 32', rw: 'randwrite', depth: 32 },
  { what: 'write, depth 1', rw: 'randwrite', depth: 1 },
];

async function startTargets(bench: Bench, disk: DiskImage, folder: string): Promise<Target[]> {
  const targets: Target[] = [];
  try {
    const pando = await Pando.start(bench, { folder });
    targets.push({
      ...{ name: 'pando', uri: pando.uri('disk/disk0') },
      ...{ settle: () => pando.settle(), stop: () => pando.stop() },
    });
    await pando.cli('vm', 'import', disk.path, '--name', 'disk', '--json');
    const settle = async (): Promise<void> => undefined;
    if (bench.has('qemu-nbd', 'qemu-img')) {
      const file = join(folder, 'disk.qcow2');
      await qcow2Of(disk.path, file);
      const { uri, process } = await qemuNbd(bench, folder, file);
      targets.push({ name: 'qemu-nbd qcow2', uri, settle, stop: () => process.stop() });
    }
    if (bench.has('nbdkit', 'qemu-img')) {
      const { uri, process } = await nbdkitMemory(bench, folder, disk.path, disk.sizeBytes);
      targets.push({ name: 'nbdkit memory', uri, settle, stop: () => process.stop() });
    }
    return targets;
  } catch (error) {
    await stopAll(targets);
    throw error;
  }
}

async function stopAll(targets: readonly Target[]): Promise<void> {
  for (const { stop } of targets) await stop();
}

export const question: Question = {
  name: 'random-io',
  title: 'Random 4 KiB reads and writes over NBD',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('random-io');
    const disk = await packData(await bench.image(), join(folder, 'disk.raw'));
    const targets = await startTargets(bench, disk, folder);
    const rows: Row[] = [];
    try {
      for (const mode of MODES) rows.push(...(await runMode(bench, mode, disk, targets)));
    } finally {
      await stopAll(targets);
    }
    return rows;
  },
};

async function runMode(
  bench: Bench,
  { what, rw, depth, wide }: Mode,
  disk: DiskImage,
  targets: readonly Target[],
): Promise<Row[]> {
  const { scale, pin, seed } = bench;
  const sizeBytes = wide === true ? disk.sizeBytes : Math.min(disk.sizeBytes, scale.workingSetBytes);
  bench.say(`  ${what}, within ${sizeBytes} bytes`);
  // One pass of reading first: who has a cache has it warm.
  for (const { uri } of targets)
    await fio({ uris: [uri], rw: 'read', blockBytes: 2 ** 20, depth: 1, sizeBytes, seed }, pin);
  const sides = targets.map(({ name, uri, settle }) => ({
    name,
    run: async (round: number) => {
      const job: FioJob = {
        uris: [uri],
        rw,
        depth,
        sizeBytes,
        seconds: scale.fioSeconds,
        seed: seed + round,
      };
      const result = await fio(job, pin);
      if (rw === 'randwrite') {
        await settle();
        // Nor may the kernel write one side's pages back while another one runs.
        if (onPath('sync')) await run('sync', ['-f', disk.path]);
      }
      return { ...result };
    },
  }));
  const samples = await alternate(sides, scale.rounds, bench.say);
  const shared = { question: 'random-io', what, side: 'pando' } as const;
  return sides.slice(1).flatMap(({ name: against }) => [
    compare(samples, { ...shared, against, unit: '1/s', better: 'more', metric: 'iops' }),
    ...(depth === 1
      ? [
          compare(samples, {
            ...{ ...shared, what: `${what}, p50`, against },
            ...{ unit: 'ms', better: 'less', metric: 'p50' },
          }),
        ]
      : []),
  ]);
}
