/** TRIM of a disk of 64 TiB with data all over it, against one that is no larger than the same data. */
import { NbdClient } from '@pando/nbd/client';
import type { Bench } from '../harness/bench.ts';
import { prng } from '../harness/images.ts';
import type { Pando } from '../harness/pando.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';
import { percentile } from '../harness/statistics.ts';
import { trimDisk } from './trim-client.ts';

const KiB = 2 ** 10;
const TiB = 2 ** 40;
const SIZES = {
  full: { pieces: 16_384, clones: 20, clonesInRequests: 3 },
  smoke: { pieces: 16, clones: 1, clonesInRequests: 1 },
} as const;
const PIECE_BYTES = 64 * KiB;
const LARGE_BYTES = 64 * TiB;
const WRITES_AT_ONCE = 16;

const LARGE = '64 TiB';
const SMALL = '1 GiB';

interface MapPage {
  readonly extents: readonly { readonly hole: boolean }[];
}

export async function trimmingDisks(bench: Bench, pando: Pando): Promise<readonly Row[]> {
  const { pieces } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  await makeDisk(bench, pando, 'small', pieces * PIECE_BYTES, PIECE_BYTES);
  await makeDisk(bench, pando, 'large', LARGE_BYTES, LARGE_BYTES / pieces);
  await pando.settle();
  const sides = [trimming(bench, pando, LARGE, 'large'), trimming(bench, pando, SMALL, 'small')];
  const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
  const shared = { question: 'trim', side: LARGE, against: SMALL, better: 'less', unit: 'ms' } as const;
  return [
    compare(samples, {
      ...{ ...shared, what: 'whole disk, one request', metric: 'ms' },
      target: { row: '19', ratio: 1.5 },
    }),
    compare(samples, { ...shared, what: 'whole disk, 32-bit requests', metric: 'msInRequests' }),
    compare(samples, { ...shared, what: 'until it is in the tree', metric: 'msInTree' }),
  ];
}

/** A VM with data in pieces, `strideBytes` apart: the same on every disk. */
async function makeDisk(
  bench: Bench,
  pando: Pando,
  name: string,
  sizeBytes: number,
  strideBytes: number,
): Promise<void> {
  const { pieces } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  await pando.rest.must('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes }] });
  const client = await NbdClient.connect({ path: pando.nbdSocket }, { exportName: `${name}/disk0` });
  try {
    const next = prng(bench.seed);
    const waiting: Promise<void>[] = [];
    for (let piece = 0; piece < pieces; piece++) {
      const data = new Uint32Array(PIECE_BYTES / 4).map(next);
      waiting.push(client.write(piece * strideBytes, new Uint8Array(data.buffer)));
      if (waiting.length >= WRITES_AT_ONCE) await Promise.all(waiting.splice(0));
    }
    await Promise.all(waiting);
  } finally {
    await client.close();
  }
}

/** Trims fresh clones one after another: with one request each, and then with as many as lengths of 32 bits take. */
function trimming(bench: Bench, pando: Pando, name: string, vm: string): Side {
  const { clones, clonesInRequests } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const trimmed = async (round: number, count: number, isExtended: boolean) => {
    const ms: number[] = [];
    const msInTree: number[] = [];
    const prefix = `${vm}-${round}-${isExtended ? 'one' : 'many'}`;
    await pando.rest.must('POST', `/vms/${vm}/clone`, { name: prefix, count });
    for (let clone = 1; clone <= count; clone++) {
      ms.push(await trimDisk(pando.nbdSocket, `${prefix}-${clone}/disk0`, isExtended));
      // A backup's map is read from its tree: asking for it does not wait until what is in the log has become old.
      const started = performance.now();
      await pando.rest.must('POST', `/vms/${prefix}-${clone}/backups`, { name: 'trimmed' });
      const disk = `/backups/${prefix}-${clone}@trimmed/disks/disk0`;
      const { extents } = (await pando.rest.must('GET', `${disk}/map`)) as MapPage;
      msInTree.push(performance.now() - started);
      if (extents.some(({ hole }) => !hole)) throw new Error(`not all of ${disk} is trimmed`);
    }
    for (let clone = 1; clone <= count; clone++) {
      await pando.rest.must('DELETE', `/vms/${prefix}-${clone}?force=true`);
    }
    return { ms: percentile(ms, 0.5), msInTree: percentile(msInTree, 0.5) };
  };
  return {
    name,
    run: async (round): Promise<Sample> => {
      const one = await trimmed(round, clones, true);
      const many = await trimmed(round, clonesInRequests, false);
      await pando.settle();
      return { ...one, msInRequests: many.ms };
    },
  };
}
