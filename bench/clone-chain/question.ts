/** Does reading get slower with the depth of a chain of clones? */
import { join } from 'node:path';
import { NbdClient } from '@pando/nbd/client';
import { WORKING_SET_BYTES, cachedReads } from '../cached-reads/load.ts';
import type { Question } from '../harness/bench.ts';
import { fromPando, fromQemuNbd } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { packData, prng } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';
import { syncDisk } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { linkedQcow2, qcow2Of } from '../harness/peers.ts';
import { run } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Target } from '../harness/rounds.ts';

const BLOCK_BYTES = 4096;
const SIZES = { full: { depth: 1000, qcowDepth: 100 }, smoke: { depth: 4, qcowDepth: 3 } } as const;

/** `c0` and its clone's clone's … clone, with one write to each before it is cloned. */
async function growPandoChain(pando: Pando, disk: DiskImage, depth: number, seed: number): Promise<void> {
  const next = prng(seed);
  const block = Buffer.alloc(BLOCK_BYTES);
  await pando.upload(disk.path, 'c0');
  for (let level = 1; level <= depth; level++) {
    await pando.rest.must('POST', `/vms/c${level - 1}/clone`, { name: `c${level}` });
    const client = await NbdClient.connect({ path: pando.nbdSocket }, { exportName: `c${level}/disk0` });
    try {
      for (let at = 0; at < BLOCK_BYTES; at += 4) block.writeUInt32LE(next(), at);
      await client.write(randomBlock(next, disk), block);
    } finally {
      await client.close();
    }
  }
}

/** The same with qcow2 files; resolves to the path of the last one. */
async function growQcowChain(
  folder: string,
  disk: DiskImage,
  depth: number,
  seed: number,
): Promise<{ first: string; last: string }> {
  const next = prng(seed);
  const path = (level: number): string => join(folder, `c${level}.qcow2`);
  await qcow2Of(disk.path, path(0));
  for (let level = 1; level <= depth; level++) {
    await linkedQcow2(path(level - 1), path(level));
    const pattern = next() & 0xff;
    const write = `write -q -P ${pattern} ${randomBlock(next, disk)} ${BLOCK_BYTES}`;
    await run('qemu-io', ['-f', 'qcow2', '-c', write, path(level)]);
  }
  return { first: path(0), last: path(depth) };
}

function randomBlock(next: () => number, disk: DiskImage): number {
  return (next() % Math.floor(disk.sizeBytes / BLOCK_BYTES)) * BLOCK_BYTES;
}

export const question: Question = {
  name: 'clone-chain',
  title: 'Random 4 KiB reads, depth 32, through a chain of clones',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { depth, qcowDepth } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const sizeBytes = WORKING_SET_BYTES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('clone-chain');
    const [booted] = await bench.images();
    const disk = await packData(booted!, join(folder, 'disk.raw'), sizeBytes);
    const pando = await Pando.start(bench, { folder });
    const qcow2: Served[] = [];
    try {
      bench.say(`  making a chain of ${depth} clones`);
      await growPandoChain(pando, disk, depth, bench.seed);
      const deep = fromPando(pando, [`c${depth}/disk0`], `pando, depth ${depth}`);
      const flat = fromPando(pando, ['c0/disk0'], 'pando, depth 0');
      if (bench.has('qemu-img', 'qemu-nbd', 'qemu-io')) {
        bench.say(`  making a chain of ${qcowDepth} qcow2 files`);
        const { first, last } = await growQcowChain(folder, disk, qcowDepth, bench.seed);
        qcow2.push(await fromQemuNbd(bench, folder, [last], `qcow2, depth ${qcowDepth}`));
        // The first file is open, read-only, in the chain too: a copy is served, so that locks do not meet.
        const copy = join(folder, 'flat.qcow2');
        await run('cp', ['--sparse=never', first, copy]);
        qcow2.push(await fromQemuNbd(bench, folder, [copy], 'qcow2, depth 0'));
      }
      await pando.settle();
      await syncDisk(folder);
      const sides = [deep, flat, ...qcow2].map((served) => cachedReads(bench, served, disk.sizeBytes));
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      const row = (side: Served, against: Served, target?: Target): Row =>
        compare(samples, {
          ...{ question: 'clone-chain', what: 'random read, depth 32', unit: '1/s', better: 'more' },
          ...{ metric: 'iops', side: side.name, against: against.name },
          ...(target === undefined ? {} : { target }),
        });
      const rows = [row(deep, flat, { row: '13', ratio: 0.97 })];
      const [qcowDeep, qcowFlat] = qcow2;
      if (qcowDeep !== undefined && qcowFlat !== undefined) {
        rows.push(row(qcowDeep, qcowFlat), row(deep, qcowDeep));
      }
      return rows;
    } finally {
      for (const { stop } of qcow2) await stop();
      await pando.stop();
    }
  },
};
