/** How long does a stored image take into a raw file again? */
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import type { DiskImage } from '../harness/images.ts';
import { syncDisk } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { run, ticksOf } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';
import { compressedQcow2In, resticIn } from '../harness/stores.ts';

const PANDO = 'pando';
const QEMU_IMG = 'qemu-img convert, qcow2 -c';
const TICKS_A_SECOND = 100;

/** Where an image comes out of. */
interface Source {
  readonly name: string;
  /** One command, which writes the image somewhere into an empty folder; resolves to the file. */
  readonly write: (folder: string) => Promise<string>;
}

/** Seconds until the file is there and on disk; then it is compared and deleted. */
async function take(source: Source, root: string, image: DiskImage): Promise<number> {
  const folder = await mkdtemp(join(root, 'out-'));
  const started = performance.now();
  const path = await source.write(folder);
  const file = await open(path, 'r+');
  await file.sync();
  await file.close();
  const seconds = (performance.now() - started) / 1000;
  await run('cmp', [image.path, path]);
  await rm(folder, { recursive: true });
  await syncDisk(root);
  return seconds;
}

async function fromRestic(
  bench: Bench,
  root: string,
  images: readonly DiskImage[],
): Promise<readonly Source[]> {
  const folder = join(root, 'restic');
  await mkdir(folder);
  const { path: repository, env, put } = await resticIn(bench, folder);
  for (const [index, { path }] of images.entries()) await put(path, String(index));
  const { path } = images.at(-1)!;
  const options = { env, prefix: bench.pin.prefix };
  return [
    {
      name: 'restic restore',
      write: async (out) => {
        await run('restic', ['--repo', repository, 'restore', 'latest', '--target', out], options);
        return join(out, path);
      },
    },
    {
      name: 'restic dump',
      write: async (out) => {
        const dump = 'exec restic --repo "$1" dump latest "$2" >"$3"';
        await run('sh', ['-c', dump, 'sh', repository, path, join(out, 'raw')], options);
        return join(out, 'raw');
      },
    },
  ];
}

async function fromQcow2(bench: Bench, root: string, { path }: DiskImage): Promise<Source> {
  const { path: folder, put } = await compressedQcow2In(bench, root);
  await put(path, 'image');
  return {
    name: QEMU_IMG,
    write: async (out) => {
      const args = ['convert', '-f', 'qcow2', '-O', 'raw', join(folder, 'image.qcow2'), join(out, 'raw')];
      await run('qemu-img', args, { prefix: bench.pin.prefix });
      return join(out, 'raw');
    },
  };
}

/** The one that takes the least time, each tried once; in a smoke run the first, because each try costs it a second. */
async function fastest(
  bench: Bench,
  sources: readonly Source[],
  root: string,
  image: DiskImage,
): Promise<Source> {
  if (bench.isSmoke) return sources[0]!;
  const seconds = new Map<Source, number>();
  for (const source of sources) {
    seconds.set(source, await take(source, root, image));
    bench.say(`  tried: ${source.name}: ${seconds.get(source)!.toFixed(1)} s`);
  }
  return sources.toSorted((a, b) => seconds.get(a)! - seconds.get(b)!)[0]!;
}

export const question: Question = {
  name: 'export',
  title: 'A stored image into a raw file',

  async run(bench) {
    const root = await bench.folder('export');
    const all = await bench.images();
    const image = all.at(-1)!;
    const images = bench.isSmoke ? [image] : all;
    const others: { readonly source: Source; readonly ratio: number }[] = [];
    if (bench.has('restic')) {
      const sources = await fromRestic(bench, root, images);
      others.push({ source: await fastest(bench, sources, root, image), ratio: 1 / 8 });
    }
    if (bench.has('qemu-img')) others.push({ source: await fromQcow2(bench, root, image), ratio: 1 / 3 });
    const server = await Pando.start(bench, { folder: root });
    try {
      for (const [index, { path }] of images.entries()) {
        await server.upload(path, `image-${index}`);
      }
      await server.settle();
      const pando: Source = {
        name: PANDO,
        write: async (out) => {
          const path = join(out, 'raw');
          await server.cli('vm', 'export', `image-${images.length - 1}`, path, '--json');
          return path;
        },
      };
      const sides: Side[] = [
        {
          name: PANDO,
          run: async (): Promise<Sample> => {
            const before = (await ticksOf(server.pid)) ?? NaN;
            const seconds = await take(pando, root, image);
            return {
              seconds,
              serverCpuSeconds: (((await ticksOf(server.pid)) ?? NaN) - before) / TICKS_A_SECOND,
            };
          },
        },
        ...others.map(({ source }) => ({
          name: source.name,
          run: async () => ({ seconds: await take(source, root, image) }),
        })),
      ];
      const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
      return others.map(({ source, ratio }): Row =>
        compare(samples, {
          ...{ question: 'export', what: 'seconds', unit: 's', better: 'less', metric: 'seconds' },
          ...{ side: PANDO, against: source.name, target: { row: '10', ratio } },
        }),
      );
    } finally {
      await server.stop();
    }
  },
};
