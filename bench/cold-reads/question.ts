/** How fast are random 4 KiB reads of what is in the page cache, but not in the server's own? */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { cpuTime, fromPando, fromQemuNbd, measure } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import { syncDisk, warmAll } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { compressedQcow2Of, qcow2Of } from '../harness/peers.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Side, Target } from '../harness/rounds.ts';
import { uniqueData } from './unique-data.ts';

const MiB = 1024 * 1024;
const SIZES = {
  full: { smallBytes: 128 * MiB, largeBytes: 4096 * MiB },
  smoke: { smallBytes: MiB, largeBytes: 4 * MiB },
} as const;

const PLAIN = 'qemu-nbd qcow2';
const COMPRESSED = 'qemu-nbd qcow2 -c';

interface Part {
  readonly name: 'small' | 'large';
  readonly what: string;
  readonly bytes: number;
  /** Absent: each block once. */
  readonly seconds?: number;
  readonly targets: Readonly<Record<string, Target>>;
}

function partsOf(bench: Bench): readonly Part[] {
  const { smallBytes, largeBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const targets = (row: string, plain: number, compressed: number): Part['targets'] => ({
    [PLAIN]: { row, ratio: plain },
    [COMPRESSED]: { row, ratio: compressed },
  });
  return [
    {
      ...{ name: 'small', what: 'just started, each block once', bytes: smallBytes },
      targets: targets('2', 1, 3),
    },
    {
      ...{ name: 'large', what: 'much more than the cache holds', bytes: largeBytes },
      ...{ seconds: bench.scale.fioSeconds, targets: targets('2b', 1, 5) },
    },
  ];
}

/** Of each part both of its numbers. */
async function run(bench: Bench, served: Served, part: Part, round: number): Promise<Record<string, number>> {
  const load = { rw: 'randread', depth: 32, sizeBytes: part.bytes } as const;
  const timed = part.seconds === undefined ? load : { ...load, seconds: part.seconds };
  const { iops, cpuMicros } = await measure(bench, served, timed, round);
  return { [`${part.name}Iops`]: iops, [`${part.name}CpuMicros`]: cpuMicros };
}

async function pandoSide(bench: Bench, folder: string, parts: readonly Part[]): Promise<Side> {
  const first = await Pando.start(bench, { folder });
  try {
    for (const { name } of parts) await first.upload(rawOf(folder, name), name);
    await first.settle();
  } finally {
    await first.stop();
  }
  return {
    name: 'pando',
    run: async (round) => {
      await warmAll(first.dataDirectory);
      const pando = await Pando.start(bench, { folder });
      try {
        const sample = {};
        for (const part of parts) {
          Object.assign(sample, await run(bench, fromPando(pando, [`${part.name}/disk0`]), part, round));
        }
        return sample;
      } finally {
        await pando.stop();
      }
    },
  };
}

async function qemuSide(
  bench: Bench,
  folder: string,
  parts: readonly Part[],
  name: string,
  make: (raw: string, target: string) => Promise<void>,
): Promise<Side> {
  const fileOf = (part: Part): string => join(folder, `${part.name}-${make.name}.qcow2`);
  for (const part of parts) await make(rawOf(folder, part.name), fileOf(part));
  return {
    name,
    run: async (round) => {
      const sample = {};
      for (const part of parts) {
        await warmAll(fileOf(part));
        const served = await fromQemuNbd(bench, folder, [fileOf(part)], name);
        try {
          Object.assign(sample, await run(bench, served, part, round));
        } finally {
          await served.stop();
        }
      }
      return sample;
    },
  };
}

function rawOf(folder: string, name: string): string {
  return join(folder, `${name}.raw`);
}

export const question: Question = {
  name: 'cold-reads',
  title: 'Random 4 KiB reads, depth 32, with nothing warm but the page cache',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('cold-reads');
    const parts = partsOf(bench);
    const [small, large] = parts.map(({ bytes }) => bytes) as [number, number];
    const [booted] = await bench.images();
    await packData(booted!, rawOf(folder, 'small'), small);
    await uniqueData(booted!, rawOf(folder, 'large'), large, bench.seed);
    bench.say('  preparing');
    const sides = [await pandoSide(bench, folder, parts)];
    if (bench.has('qemu-nbd', 'qemu-img')) {
      sides.push(await qemuSide(bench, folder, parts, PLAIN, qcow2Of));
      sides.push(await qemuSide(bench, folder, parts, COMPRESSED, compressedQcow2Of));
    }
    // The page cache is for what is served.
    for (const { name } of parts) await rm(rawOf(folder, name));
    await syncDisk(folder);
    const samples = await alternate(sides, bench.scale.rounds, bench.say);
    const peers = sides.slice(1).map(({ name }) => name);
    return parts.flatMap(({ name, what, targets }) => {
      const shared = { question: 'cold-reads', side: 'pando' } as const;
      const speed = { unit: '1/s', better: 'more', metric: `${name}Iops` } as const;
      return [
        ...compareEach(samples, { ...shared, what, ...speed }, peers, targets),
        ...compareEach(samples, { ...shared, ...cpuTime(what, `${name}CpuMicros`) }, peers),
      ];
    });
  },
};
