/** Does reading get slower with the depth of a chain of clones? */
import { join } from 'node:path';
import { NbdClient } from '@pando/nbd/client';
import type { Bench, Question } from '../harness/bench.ts';
import { fio } from '../harness/fio.ts';
import { packData, prng } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { qcow2Of, qemuNbd } from '../harness/peers.ts';
import { run } from '../harness/processes.ts';
import type { Running } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Side } from '../harness/rounds.ts';

const BLOCK_BYTES = 4096;
const DEPTH = 32;

/** `c0` and its clone's clone's … clone, with one write to each before it is cloned. */
async function growPandoChain(pando: Pando, disk: DiskImage, depth: number, seed: number): Promise<void> {
  const next = prng(seed);
  const block = Buffer.alloc(BLOCK_BYTES);
  await pando.cli('vm', 'import', disk.path, '--name', 'c0', '--json');
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
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', path(level - 1), path(level)]);
    const pattern = next() & 0xff;
    const write = `write -q -P ${pattern} ${randomBlock(next, disk)} ${BLOCK_BYTES}`;
    await run('qemu-io', ['-f', 'qcow2', '-c', write, path(level)]);
  }
  return { first: path(0), last: path(depth) };
}

function randomBlock(next: () => number, disk: DiskImage): number {
  return (next() % Math.floor(disk.sizeBytes / BLOCK_BYTES)) * BLOCK_BYTES;
}

function reader(bench: Bench, name: string, uri: string, disk: DiskImage): Side {
  const { pin, seed, scale } = bench;
  const sizeBytes = disk.sizeBytes;
  return {
    name,
    run: async (round) => {
      // Each run begins with one pass over the disk: the sides share one cache, and both are to find it warm.
      await fio({ uris: [uri], rw: 'read', blockBytes: 2 ** 20, depth: 1, sizeBytes, seed }, pin);
      const job = { uris: [uri], sizeBytes, seconds: scale.fioSeconds, seed: seed + round };
      return { ...(await fio({ ...job, rw: 'randread', depth: DEPTH }, pin)) };
    },
  };
}

export const question: Question = {
  name: 'clone-chain',
  title: 'Random 4 KiB reads, depth 32, through a chain of clones',

  async run(bench) {
    const { scale, seed } = bench;
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('clone-chain');
    const disk = await packData(await bench.image(), join(folder, 'disk.raw'), scale.workingSetBytes);
    const pando = await Pando.start(bench, { folder });
    const running: Running[] = [];
    try {
      bench.say(`  making a chain of ${scale.chainDepth} clones`);
      await growPandoChain(pando, disk, scale.chainDepth, seed);
      await pando.settle();
      const names = { flat: 'pando, depth 0', deep: `pando, depth ${scale.chainDepth}` };
      const sides = [
        reader(bench, names.deep, pando.uri(`c${scale.chainDepth}/disk0`), disk),
        reader(bench, names.flat, pando.uri('c0/disk0'), disk),
      ];
      const pairs = [[names.deep, names.flat]];
      if (bench.has('qemu-img', 'qemu-nbd', 'qemu-io')) {
        bench.say(`  making a chain of ${scale.qcowChainDepth} qcow2 files`);
        const chain = await growQcowChain(folder, disk, scale.qcowChainDepth, seed);
        const last = await qemuNbd(bench, folder, chain.last);
        running.push(last.process);
        // The first file is open, read-only, in the chain too: a copy is served, so that locks do not meet.
        const copy = join(folder, 'flat.qcow2');
        await run('cp', ['--sparse=never', chain.first, copy]);
        const first = await qemuNbd(bench, folder, copy);
        running.push(first.process);
        const flat = 'qcow2, depth 0';
        const deep = `qcow2, depth ${scale.qcowChainDepth}`;
        sides.push(reader(bench, deep, last.uri, disk), reader(bench, flat, first.uri, disk));
        pairs.push([deep, flat], [names.deep, deep]);
      }
      const samples = await alternate(sides, scale.rounds, bench.say);
      return pairs.map(([side, against]): Row =>
        compare(samples, {
          ...{ question: 'clone-chain', what: 'read, depth 32', unit: '1/s', better: 'more' },
          ...{ metric: 'iops', side: side!, against: against! },
        }),
      );
    } finally {
      for (const process of running) await process.stop();
      await pando.stop();
    }
  },
};
