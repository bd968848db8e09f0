/** Clones of a VM with a disk of 64 TiB, against clones of one with 1 GiB. */
import { GiB, TiB } from '@pando/common';
import { NbdClient } from '@pando/nbd/client';
import type { Bench } from '../harness/bench.ts';
import { prng } from '../harness/images.ts';
import type { Pando } from '../harness/pando.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row } from '../harness/rounds.ts';
import type { TimedRequests } from '../harness/timed-requests.ts';
import { byTurns, warmUp } from './sides.ts';

const SIZES = {
  full: { clones: 500, warmUp: 50, writes: 4096 },
  smoke: { clones: 3, warmUp: 1, writes: 16 },
} as const;
const BLOCK_BYTES = 4096;
const WRITES_AT_ONCE = 32;
const LARGE = { name: '64 TiB', vm: 'large', sizeBytes: 64 * TiB } as const;
const SMALL = { name: '1 GiB', vm: 'small', sizeBytes: GiB } as const;

/** Blocks of noise, all over the disk. */
async function fill(
  pando: Pando,
  vm: string,
  sizeBytes: number,
  writes: number,
  seed: number,
): Promise<void> {
  const next = prng(seed);
  const client = await NbdClient.connect({ path: pando.nbdSocket }, { exportName: `${vm}/disk0` });
  try {
    for (let written = 0; written < writes;) {
      const waiting: Promise<void>[] = [];
      for (; waiting.length < WRITES_AT_ONCE && written < writes; written++) {
        const block = Buffer.alloc(BLOCK_BYTES);
        for (let at = 0; at < BLOCK_BYTES; at += 4) block.writeUInt32LE(next(), at);
        const share = next() / 2 ** 32;
        waiting.push(client.write(Math.floor((share * sizeBytes) / BLOCK_BYTES) * BLOCK_BYTES, block));
      }
      await Promise.all(waiting);
    }
    await client.flush();
  } finally {
    await client.close();
  }
}

export async function clonesBySize(bench: Bench, pando: Pando, client: TimedRequests): Promise<Row[]> {
  const sizes = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  for (const { vm, sizeBytes } of [LARGE, SMALL]) {
    await pando.rest.must('POST', '/vms', { name: vm, disks: [{ name: 'disk0', sizeBytes }] });
    await fill(pando, vm, sizeBytes, sizes.writes, bench.seed);
  }
  await pando.settle();
  for (const { vm } of [LARGE, SMALL]) await warmUp(pando, client, vm, sizes.warmUp);
  const cloner = ({ name, vm }: typeof LARGE | typeof SMALL) => ({
    name,
    clone: (clone: string) => client.clone(vm, clone),
  });
  const sides = byTurns(cloner(LARGE), cloner(SMALL), sizes.clones);
  const samples = await alternate(sides, bench.scale.rounds, bench.say);
  const shared = { question: 'clone-latency', unit: 'ms', better: 'less' } as const;
  const names = { side: LARGE.name, against: SMALL.name } as const;
  return [
    compare(samples, {
      ...{ ...shared, ...names, what: 'clone of a large disk, p99', metric: 'p99' },
      target: { row: '12', ratio: 1.2 },
    }),
    compare(samples, { ...shared, ...names, what: 'clone of a large disk, p50', metric: 'p50' }),
  ];
}
