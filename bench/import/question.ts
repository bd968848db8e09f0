/** How long does an image take into the store, and what does it cost there? And the same image once more? */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { warm } from '../harness/images.ts';
import { Pando } from '../harness/pando.ts';
import { diskBytes, onPath, run, timed } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';

/** First and second time into a repository that begins empty, and how large it is after each. */
async function take(
  first: () => Promise<number>,
  again: () => Promise<number>,
  path: string,
): Promise<Sample> {
  const seconds = await first();
  const bytes = await measure(path);
  const againSeconds = await again();
  return { seconds, bytes, againSeconds, againBytes: (await measure(path)) - bytes };
}

async function measure(path: string): Promise<number> {
  // Space is given out when dirty pages are written.
  if (onPath('sync')) await run('sync', ['-f', path]);
  return diskBytes(path);
}

async function pando(bench: Bench, image: string, folder: string): Promise<Sample> {
  const server = await Pando.start(bench, { folder });
  try {
    const send = (name: string) => (): Promise<number> =>
      server.timedCli('vm', 'import', image, '--name', name, '--json');
    return await take(send('first'), send('again'), server.dataDirectory);
  } finally {
    await server.stop();
  }
}

async function restic(image: string, folder: string): Promise<Sample> {
  const repository = join(folder, 'repository');
  const env = { RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: join(folder, 'cache') };
  const backup = (): Promise<number> =>
    timed('restic', ['--repo', repository, 'backup', '--force', image], { env });
  await run('restic', ['--repo', repository, 'init'], { env });
  return take(backup, backup, repository);
}

async function borg(image: string, folder: string): Promise<Sample> {
  const repository = join(folder, 'repository');
  const env = { BORG_BASE_DIR: folder, BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes' };
  const create = (name: string) => (): Promise<number> =>
    timed('borg', ['create', '--files-cache', 'disabled', `${repository}::${name}`, image], { env });
  await run('borg', ['init', '--encryption', 'none', repository], { env });
  return take(create('first'), create('again'), repository);
}

async function qemuImg(image: string, folder: string): Promise<Sample> {
  const target = join(folder, 'images');
  await mkdir(target);
  const convert = (name: string) => (): Promise<number> =>
    timed('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', image, join(target, name)]);
  return take(convert('first.qcow2'), convert('again.qcow2'), target);
}

export const question: Question = {
  name: 'import',
  title: 'A disk image into the store, and again unchanged',

  async run(bench) {
    const image = await bench.image();
    const root = await bench.folder('import');
    await warm(image.path);
    const measured =
      (name: string, measureIn: (folder: string) => Promise<Sample>) =>
      async (round: number): Promise<Sample> => {
        const folder = join(root, `${name}-${round}`);
        await mkdir(folder);
        try {
          return await measureIn(folder);
        } finally {
          await rm(folder, { recursive: true });
        }
      };
    const sides: Side[] = [
      { name: 'pando', run: measured('pando', (folder) => pando(bench, image.path, folder)) },
    ];
    if (bench.has('restic')) {
      sides.push({ name: 'restic backup', run: measured('restic', (folder) => restic(image.path, folder)) });
    }
    if (bench.has('borg')) {
      sides.push({ name: 'borg create', run: measured('borg', (folder) => borg(image.path, folder)) });
    }
    if (bench.has('qemu-img')) {
      sides.push({
        name: 'qemu-img convert -c',
        run: measured('qemu', (folder) => qemuImg(image.path, folder)),
      });
    }
    const samples = await alternate(sides, bench.scale.rounds, bench.say);

    const shared = { question: 'import', better: 'less', side: 'pando' } as const;
    const rows: Row[] = [];
    for (const { name: against } of sides.slice(1)) {
      rows.push(
        compare(samples, { ...shared, against, what: 'seconds', unit: 's', metric: 'seconds' }),
        compare(samples, { ...shared, against, what: 'bytes on disk', unit: 'bytes', metric: 'bytes' }),
        compare(samples, {
          ...shared,
          against,
          what: 'seconds, again unchanged',
          unit: 's',
          metric: 'againSeconds',
        }),
      );
    }
    rows.push(
      compare(samples, {
        ...shared,
        ...{ side: 'pando', against: 'pando', what: 'again unchanged against first', unit: 's' },
        ...{ metric: 'againSeconds', againstMetric: 'seconds' },
      }),
    );
    return rows;
  },
};
