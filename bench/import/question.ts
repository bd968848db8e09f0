/** How long do three images that belong together take into the store, and what do they cost there? And once more, unchanged? */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { warm } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';
import { syncDisk } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { diskBytes, ticksOf } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';
import { borgIn, casyncIn, compressedQcow2In, resticIn } from '../harness/stores.ts';
import type { Store } from '../harness/stores.ts';

const PANDO = 'pando';
const SMALLEST = 'the smallest of them';
const TICKS_A_SECOND = 100;

type Open = (bench: Bench, folder: string) => Promise<Store>;

/** What is timed in each round. */
const BACKUPS: readonly (readonly [name: string, tool: string, open: Open])[] = [
  ['restic backup', 'restic', resticIn],
  ['borg create', 'borg', borgIn],
];
/** What only its bytes are asked of. */
const ARCHIVES: readonly (readonly [name: string, tool: string, open: Open])[] = [
  ['casync make', 'casync', casyncIn],
  ['qemu-img convert -c', 'qemu-img', compressedQcow2In],
];

/** Seconds of all images, one after another. */
async function putAll(store: Store, images: readonly DiskImage[], prefix: string): Promise<number> {
  const started = performance.now();
  for (const [index, { path }] of images.entries()) await store.put(path, `${prefix}-${index}`);
  return (performance.now() - started) / 1000;
}

async function bytesOf(path: string): Promise<number> {
  // Space is given out when dirty pages are written.
  await syncDisk(path);
  return diskBytes(path);
}

async function inPando(bench: Bench, images: readonly DiskImage[], folder: string): Promise<Sample> {
  const server = await Pando.start(bench, { folder });
  try {
    const store: Store = {
      path: server.dataDirectory,
      put: async (image, name) => {
        await server.cli('vm', 'import', image, '--name', name, '--json');
      },
    };
    const ticksBefore = (await ticksOf(server.pid)) ?? NaN;
    const seconds = await putAll(store, images, 'first');
    const serverCpuSeconds = (((await ticksOf(server.pid)) ?? NaN) - ticksBefore) / TICKS_A_SECOND;
    const bytes = await bytesOf(store.path);
    const againSeconds = await putAll(store, bench.isSmoke ? images.slice(0, 1) : images, 'again');
    return {
      seconds,
      bytes,
      againSeconds,
      againBytes: (await bytesOf(store.path)) - bytes,
      serverCpuSeconds,
    };
  } finally {
    await server.stop();
  }
}

export const question: Question = {
  name: 'import',
  title: 'Three disk images into the store, and again unchanged',

  async run(bench) {
    const images = await bench.images();
    const root = await bench.folder('import');
    for (const { path } of images) await warm(path);
    const inFolder = async (name: string, measure: (folder: string) => Promise<Sample>): Promise<Sample> => {
      const folder = join(root, name.replaceAll(' ', '-'));
      await mkdir(folder);
      try {
        return await measure(folder);
      } finally {
        await rm(folder, { recursive: true });
        await syncDisk(root);
      }
    };
    // These make the same bytes each time, and take long: once, and not timed, so side by side.
    const archives = await Promise.all(
      ARCHIVES.filter(([, tool]) => bench.has(tool)).map(async ([name, , open]) => {
        const sample = await inFolder(name, async (folder) => {
          const store = await open(bench, folder);
          await putAll(store, images, 'first');
          return { bytes: await bytesOf(store.path) };
        });
        bench.say(`  ${name}: ${sample['bytes']} bytes`);
        return { name, sample };
      }),
    );
    const backups = BACKUPS.filter(([, tool]) => bench.has(tool));
    const sides: Side[] = [
      { name: PANDO, run: () => inFolder(PANDO, (folder) => inPando(bench, images, folder)) },
      ...backups.map(([name, , open]) => ({
        name,
        run: () =>
          inFolder(name, async (folder) => {
            const store = await open(bench, folder);
            return { seconds: await putAll(store, images, 'first'), bytes: await bytesOf(store.path) };
          }),
      })),
    ];
    const samples = new Map(await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke));
    const rounds = samples.get(PANDO)!.map((_, round) => round);
    for (const { name, sample } of archives) {
      samples.set(
        name,
        rounds.map(() => sample),
      );
    }
    const others = [...samples.keys()].filter((name) => name !== PANDO);

    const shared = { question: 'import', better: 'less', side: PANDO } as const;
    const seconds = { ...shared, what: 'seconds', unit: 's', metric: 'seconds' } as const;
    const bytes = { ...shared, what: 'bytes on disk', unit: 'bytes', metric: 'bytes' } as const;
    const again = { ...shared, what: 'seconds, again unchanged', unit: 's', metric: 'againSeconds' } as const;
    const rows: Row[] = [
      ...backups.map(([against]) =>
        compare(samples, { ...seconds, against, target: { row: '8', ratio: 1 / 10 } }),
      ),
      compare(samples, {
        ...{ ...again, against: PANDO, againstMetric: 'seconds', target: { row: '8', ratio: 1 / 4 } },
      }),
      ...others.map((against) => compare(samples, { ...bytes, against })),
    ];
    if (others.length > 0) {
      const smallest = rounds.map((round) => ({
        bytes: Math.min(...others.map((name) => samples.get(name)![round]!['bytes']!)),
      }));
      samples.set(SMALLEST, smallest);
      rows.push(compare(samples, { ...bytes, against: SMALLEST, target: { row: '9', ratio: 0.85 } }));
    }
    return rows;
  },
};
