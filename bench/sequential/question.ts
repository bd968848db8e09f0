/** How fast is a disk read from one end to the other, and written? */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { cpuTime, flushSeconds, fromPando, fromQemuNbd, measure, warmUp } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { syncDisk, warmAll } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { allocatedQcow2, qcow2Of } from '../harness/peers.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Sample, Side } from '../harness/rounds.ts';

const MiB = 1024 * 1024;
const SIZES = {
  full: { cachedBytes: 64 * MiB, burstBytes: 768 * MiB, sustainedBytes: 4096 * MiB },
  smoke: { cachedBytes: MiB, burstBytes: 2 * MiB, sustainedBytes: 4 * MiB },
} as const;
const SHAPE = { blockBytes: MiB, depth: 4 } as const;
const QEMU = 'qemu-nbd qcow2';

const ROWS = [
  { what: 'read once, just started', name: 'readOnce', ratio: 1.2 },
  { what: 'read again, from the cache', name: 'readAgain', ratio: 1.2 },
  { what: 'write, acknowledged', name: 'burst', ratio: 1 },
  { what: 'write, sustained, with its flush', name: 'sustained', ratio: 0.6 },
] as const;
type Name = (typeof ROWS)[number]['name'];

interface Numbers {
  readonly mibPerSecond: number;
  readonly cpuMicros: number;
}

const named = (name: Name, { mibPerSecond, cpuMicros }: Numbers): Sample => ({
  [name]: mibPerSecond,
  [`${name}CpuMicros`]: cpuMicros,
});

async function reads(bench: Bench, served: Served, bytes: number, round: number): Promise<Sample> {
  const { cachedBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const load = { ...SHAPE, rw: 'read' } as const;
  const once = await measure(bench, served, { ...load, sizeBytes: bytes }, round);
  const few = { ...load, sizeBytes: Math.min(bytes, cachedBytes) };
  await warmUp(bench, served, few, round);
  const again = await measure(bench, served, { ...few, seconds: bench.scale.fioSeconds }, round);
  return { ...named('readOnce', once), ...named('readAgain', again) };
}

interface Stoppable extends Side {
  readonly stop: () => Promise<void>;
}

/** The burst is the beginning of the whole. */
async function writes(bench: Bench, served: Served, round: number): Promise<Sample> {
  const { burstBytes, sustainedBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const load = { ...SHAPE, rw: 'write' } as const;
  const burst = await measure(bench, served, { ...load, sizeBytes: burstBytes }, round);
  const restOf = { sizeBytes: sustainedBytes - burstBytes, offsetBytes: burstBytes };
  // Other data than in any burst.
  const rest = await measure(bench, served, { ...load, ...restOf }, bench.scale.rounds + round);
  const flushed = await flushSeconds(served);
  return {
    ...named('burst', burst),
    ...named('sustained', {
      mibPerSecond: sustainedBytes / MiB / (burst.seconds + rest.seconds + flushed),
      cpuMicros: (burst.cpuMicros * burst.bytes + rest.cpuMicros * rest.bytes) / sustainedBytes,
    }),
    flushSeconds: flushed,
  };
}

async function pandoSide(bench: Bench, folder: string, raw: string, bytes: number): Promise<Stoppable> {
  const { sustainedBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  let pando = await Pando.start(bench, { folder });
  const quiet = async (): Promise<void> => {
    await pando.settle();
    await syncDisk(folder);
  };
  const run = async (round: number): Promise<Sample> => {
    // A start takes seconds, which a smoke run does not have.
    if (!bench.isSmoke) {
      await pando.stop();
      await warmAll(pando.dataDirectory);
      pando = await Pando.start(bench, { folder });
    }
    const read = await reads(bench, fromPando(pando, ['source/disk0']), bytes, round);
    const disks = [{ name: 'disk0', sizeBytes: sustainedBytes }];
    await pando.rest.must('POST', '/vms', { name: 'target', disks });
    const written = await writes(bench, fromPando(pando, ['target/disk0']), round);
    const notDestagedMiB = (await pando.metric('pando_overlay_bytes')) / MiB;
    await pando.rest.must('DELETE', '/vms/target?force=true');
    if (!bench.isSmoke) await pando.rest.job('/gc');
    await quiet();
    return { ...read, ...written, notDestagedMiB };
  };
  try {
    await pando.upload(raw, 'source');
    await quiet();
  } catch (error) {
    await pando.stop();
    throw error;
  }
  return { name: 'pando', run, stop: () => pando.stop() };
}

async function qemuSide(bench: Bench, folder: string, raw: string, bytes: number): Promise<Side> {
  const { sustainedBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const source = join(folder, 'source.qcow2');
  const target = join(folder, 'target.qcow2');
  await qcow2Of(raw, source);
  await allocatedQcow2(sustainedBytes, target);
  const quiet = (): Promise<void> => syncDisk(folder);
  const serving = async (file: string, use: (served: Served) => Promise<Sample>): Promise<Sample> => {
    await warmAll(file);
    const served = await fromQemuNbd(bench, folder, [file], QEMU);
    try {
      return await use(served);
    } finally {
      await served.stop();
      await quiet();
    }
  };
  return {
    name: QEMU,
    run: async (round) => ({
      ...(await serving(source, (served) => reads(bench, served, bytes, round))),
      ...(await serving(target, (served) => writes(bench, served, round))),
    }),
  };
}

export const question: Question = {
  name: 'sequential',
  title: 'Sequential reads and writes of 1 MiB',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('sequential');
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'));
    const bytes = disk.sizeBytes - (disk.sizeBytes % SHAPE.blockBytes);
    const pando = await pandoSide(bench, folder, disk.path, bytes);
    try {
      const sides: Side[] = [pando];
      if (bench.has('qemu-nbd', 'qemu-img')) sides.push(await qemuSide(bench, folder, disk.path, bytes));
      await rm(disk.path);
      await syncDisk(folder);
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const peers = sides.slice(1).map(({ name }) => name);
      const shared = { question: 'sequential', side: 'pando' } as const;
      return ROWS.flatMap(({ what, name, ratio }) => {
        const speed = { what, unit: 'MiB/s', better: 'more', metric: name } as const;
        return [
          ...compareEach(samples, { ...shared, ...speed }, peers, { [QEMU]: { row: '7', ratio } }),
          ...compareEach(samples, { ...shared, ...cpuTime(what, `${name}CpuMicros`) }, peers),
        ];
      });
    } finally {
      await pando.stop();
    }
  },
};
