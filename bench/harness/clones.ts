/** Clones of one disk, made anew for each run and gone after it: of Pando, and as qcow2 files in front of a backing file. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench } from './bench.ts';
import { fromPando, fromQemuNbd, measure, requestsOf } from './exports.ts';
import type { Load, Served } from './exports.ts';
import { syncDisk } from './page-cache.ts';
import type { Pando } from './pando.ts';
import { linkedQcow2, qcow2Of } from './peers.ts';
import type { Side } from './rounds.ts';

/** Makes clones that nothing was written to; `stop` removes them with all that was written meanwhile. */
interface Cloner {
  readonly name: string;
  readonly make: (count: number) => Promise<Served>;
}

export interface CloneLoad {
  readonly count: number;
  readonly load: Load;
}

/** The same load on as many clones, all at once: on Pando, which imports the disk as `golden`, and on a qemu-nbd each. */
export async function cloneSides(
  bench: Bench,
  folder: string,
  pando: Pando,
  raw: string,
  { count, load }: CloneLoad,
): Promise<Side[]> {
  await pando.upload(raw, 'golden');
  const cloners = [pandoCloner(pando, bench)];
  if (bench.has('qemu-nbd', 'qemu-img')) cloners.push(await qemuCloner(bench, folder, raw));
  await pando.settle();
  await syncDisk(folder);
  return cloners.map(({ name, make }) => ({
    name,
    run: async (round) => {
      const served = await make(count);
      try {
        return requestsOf(await measure(bench, served, load, round));
      } finally {
        await served.stop();
        await syncDisk(folder);
      }
    },
  }));
}

function pandoCloner(pando: Pando, bench: Bench): Cloner {
  return {
    name: 'pando',
    make: async (count) => {
      const name = 'clone';
      await pando.rest.must('POST', '/vms/golden/clone', { name, count });
      const names = Array.from({ length: count }, (_, index) => `${name}-${index + 1}`);
      const exports = names.map((one) => `${one}/disk0`);
      return {
        ...fromPando(pando, exports),
        stop: async () => {
          for (const one of names) await pando.rest.must('DELETE', `/vms/${one}?force=true`);
          if (bench.isSmoke) return;
          await pando.rest.job('/gc');
          await pando.settle();
        },
      };
    },
  };
}

async function qemuCloner(bench: Bench, folder: string, raw: string): Promise<Cloner> {
  const base = join(folder, 'base.qcow2');
  await qcow2Of(raw, base);
  const name = 'qemu-nbd linked qcow2';
  return {
    name,
    make: async (count) => {
      const files = Array.from({ length: count }, (_, index) => join(folder, `clone-${index + 1}.qcow2`));
      for (const file of files) await linkedQcow2(base, file);
      const served = await fromQemuNbd(bench, folder, files, name);
      return {
        ...served,
        stop: async () => {
          await served.stop();
          for (const file of files) await rm(file);
        },
      };
    },
  };
}
