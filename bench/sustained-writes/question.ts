/** How fast is a clone written to when it goes on for two minutes, and how much does that write to the disk? */
import { createReadStream } from 'node:fs';
import { appendFile, copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench, Question } from '../harness/bench.ts';
import { measureWrites } from '../harness/disk-writes.ts';
import { cpuTime, fromPando, fromQemuNbd } from '../harness/exports.ts';
import type { Load } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { compressedQcow2Of, linkedQcow2, sparseQcow2Of } from '../harness/peers.ts';
import { run } from '../harness/processes.ts';
import { alternate, compare, compareToLimit } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';

const MiB = 2 ** 20;
const SIZES = {
  full: { diskBytes: 4096 * MiB, dataBytes: 256 * MiB, seconds: 120, compressedBytes: 512 * MiB, looks: 30 },
  smoke: { diskBytes: 64 * MiB, dataBytes: MiB, seconds: 0.2, compressedBytes: MiB, looks: 2 },
} as const;

/** The log is watched for the last quarter of the time: its mean size in the second half of that against the first. */
const WATCHED_SHARE = 0.25;
const BEGIN_MS = 50;
/** It goes up and down by a file of 64 MiB at a time. */
const LOG_GROWTH_MAX = 1.1;

const QEMU = 'qemu-nbd linked qcow2';
const REWRITTEN = 'qcow2 -c rewritten';

export const question: Question = {
  name: 'sustained-writes',
  title: 'Random 4 KiB writes, depth 32, onto a clone, for two minutes, and the bytes that reach the disk',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { diskBytes, dataBytes, seconds, compressedBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const root = await bench.folder('sustained-writes');
    const image = await packData(await bench.image(), join(root, 'disk.raw'), dataBytes);
    const load = { rw: 'randwrite', depth: 32, sizeBytes: diskBytes, seconds } as const;
    const sides = [pandoSide(bench, root, image, load)];
    if (bench.has('qemu-nbd', 'qemu-img')) {
      sides.push(await linkedSide(bench, root, image, load));
      sides.push(await rewrittenSide(bench, root, image, compressedBytes));
    }
    const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
    const shared = { question: 'sustained-writes', side: 'pando' } as const;
    const speed = { what: `for ${seconds} s`, unit: '1/s', better: 'more', metric: 'iops' } as const;
    const log = { what: 'log: end against before', unit: 'times', better: 'less' } as const;
    const bytes = { what: 'bytes to disk a byte', unit: 'times', better: 'less' } as const;
    const rows: Row[] = [
      compareToLimit(samples, {
        ...{ ...shared, ...log, metric: 'logGrowth' },
        ...{ row: '4', limit: LOG_GROWTH_MAX },
      }),
      compareToLimit(samples, { ...shared, ...bytes, metric: 'amplification', row: '17', limit: 3 }),
    ];
    if (sides.length === 1) return rows;
    return [
      compare(samples, { ...shared, ...speed, against: QEMU, target: { row: '4', ratio: 2 } }),
      compare(samples, { ...shared, ...cpuTime(speed.what), against: QEMU }),
      ...rows,
      ...[QEMU, REWRITTEN].map((against) =>
        compare(samples, { ...shared, ...bytes, metric: 'amplification', against }),
      ),
    ];
  },
};

/** A fresh server with the image and one clone of it, in each round. */
function pandoSide(bench: Bench, root: string, image: DiskImage, load: Load & { seconds: number }): Side {
  return {
    name: 'pando',
    run: async (round) => {
      const folder = join(root, 'pando');
      await mkdir(folder);
      const pando = await Pando.start(bench, { folder });
      try {
        await pando.upload(image.path, 'golden');
        const disk = { name: 'disk0', sizeBytes: load.sizeBytes };
        await pando.rest.must('PATCH', '/vms/golden', { disk });
        await pando.rest.must('POST', '/vms/golden/clone', { name: 'clone' });
        await pando.settle();
        const served = fromPando(pando, ['clone/disk0']);
        const [sample, logGrowth] = await Promise.all([
          measureWrites(bench, folder, served, load, round),
          watchLog(bench, pando, load.seconds),
        ]);
        return { ...sample, logGrowth };
      } finally {
        await pando.stop();
        await rm(folder, { recursive: true });
      }
    },
  };
}

async function linkedSide(bench: Bench, root: string, image: DiskImage, load: Load): Promise<Side> {
  const base = join(root, 'base.qcow2');
  await sparseQcow2Of(image.path, base);
  await run('qemu-img', ['resize', '-q', '-f', 'qcow2', base, String(load.sizeBytes)]);
  return {
    name: QEMU,
    run: (round) =>
      onFile(bench, root, QEMU, load, round, async (file) => {
        await linkedQcow2(base, file);
      }),
  };
}

/** Each block of a compressed file once, in random order: how much of that reaches the disk. */
async function rewrittenSide(bench: Bench, root: string, image: DiskImage, bytes: number): Promise<Side> {
  const raw = join(root, 'repeated.raw');
  const compressed = join(root, 'compressed.qcow2');
  for (let size = 0; size < bytes; size += image.sizeBytes) {
    await appendFile(raw, createReadStream(image.path, { end: Math.min(image.sizeBytes, bytes - size) - 1 }));
  }
  await compressedQcow2Of(raw, compressed);
  await rm(raw);
  const load = { rw: 'randwrite', depth: 32, sizeBytes: bytes } as const;
  return {
    name: REWRITTEN,
    run: (round) =>
      onFile(bench, root, REWRITTEN, load, round, async (file) => {
        await copyFile(compressed, file);
      }),
  };
}

async function onFile(
  bench: Bench,
  root: string,
  name: string,
  load: Load,
  round: number,
  make: (file: string) => Promise<void>,
): Promise<Sample> {
  const folder = join(root, name.replaceAll(' ', '-'));
  await mkdir(folder);
  try {
    const file = join(folder, 'disk.qcow2');
    await make(file);
    const served = await fromQemuNbd(bench, folder, [file], name);
    try {
      return await measureWrites(bench, folder, served, load, round);
    } finally {
      await served.stop();
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** How the write log grows at the end of a load that is about to begin. */
async function watchLog(bench: Bench, pando: Pando, seconds: number): Promise<number> {
  const { looks } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  while ((await pando.metric('pando_guest_written_bytes_total')) === 0) await sleep(BEGIN_MS);
  const watchedMs = seconds * WATCHED_SHARE * 1000;
  await sleep(seconds * 1000 - watchedMs);
  const sizes: number[] = [];
  for (let look = 0; look < looks; look++) {
    const began = performance.now();
    sizes.push(await pando.metric('pando_log_bytes'));
    await sleep(Math.max(0, watchedMs / looks - (performance.now() - began)));
  }
  const mean = (some: readonly number[]): number => some.reduce((sum, size) => sum + size, 0) / some.length;
  return mean(sizes.slice(looks / 2)) / mean(sizes.slice(0, looks / 2));
}
