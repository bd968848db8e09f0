/** How long does a server that was killed take to serve, and how much memory? */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NbdClient } from '@pando/nbd/client';
import type { Bench, Question } from '../harness/bench.ts';
import { syncDisk, warmAll } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { peakBytes, run, ticksOf } from '../harness/processes.ts';
import { alternate, compare, compareToLimit } from '../harness/rounds.ts';
import type { Row, Sample, Side, Unit } from '../harness/rounds.ts';

const PREPARE = fileURLToPath(new URL('prepare.ts', import.meta.url));
const MiB = 2 ** 20;
const SIZES = {
  // A server lets 10,000 clients in at a time: as many disks can be at work.
  full: { vms: 100_000, busy: 10_000, logBytes: 256 * MiB },
  smoke: { vms: 8, busy: 3, logBytes: MiB },
} as const;
const SECONDS_MAX = 3;
const READ_BYTES = 4096;

export const question: Question = {
  name: 'start-up',
  title: 'Start of a server that was killed, until the first read',

  async run(bench) {
    const { vms, busy, logBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const root = await bench.folder('start-up');
    const many = `${vms.toLocaleString('en')} VMs, ${busy.toLocaleString('en')} in the log`;
    const sides = [
      await preparedSide(bench, root, 'one VM, log empty', [1, 0, 0]),
      await preparedSide(bench, root, many, [vms, busy, logBytes]),
    ];
    const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
    const shared = { question: 'start-up', better: 'less', side: many } as const;
    const seconds = { what: 'until the first read', unit: 's', metric: 'seconds' } as const;
    const [one] = sides.map(({ name }) => name) as [string];
    const against = (what: string, unit: Unit, metric: string): Row =>
      compare(samples, { ...shared, what, unit, metric, against: one });
    return [
      compareToLimit(samples, { ...shared, ...seconds, row: '16', limit: SECONDS_MAX }),
      against(seconds.what, 's', 'seconds'),
      against('processor time until then', 's', 'cpuSeconds'),
      against('peak memory until then', 'bytes', 'bytes'),
    ];
  },
};

/** A store that is prepared once; each run starts a server on a copy of it. */
async function preparedSide(
  bench: Bench,
  root: string,
  name: string,
  numbers: readonly [vms: number, written: number, logBytes: number],
): Promise<Side> {
  const prepared = join(root, numbers.join('-'));
  const args = [PREPARE, prepared, ...numbers.map(String), String(bench.seed)];
  // It kills itself.
  await run('sh', ['-c', '"$0" "$@"; test $? -eq 137', process.execPath, ...args]);
  const isWritten = numbers[1] > 0;
  return { name, run: () => startOn(bench, join(root, `round-${numbers.join('-')}`), prepared, isWritten) };
}

async function startOn(bench: Bench, folder: string, prepared: string, isWritten: boolean): Promise<Sample> {
  await mkdir(folder);
  await run('cp', ['-a', '--reflink=auto', prepared, join(folder, 'data')]);
  if (!bench.isSmoke) await syncDisk(folder);
  await warmAll(folder);
  const started = performance.now();
  const pando = await Pando.start(bench, { folder });
  try {
    const data = await readFirst(pando);
    const seconds = (performance.now() - started) / 1000;
    const cpuSeconds = ((await ticksOf(pando.pid)) ?? NaN) / 100;
    const bytes = await peakBytes(pando.pid);
    if (data.some((byte) => byte !== 0) !== isWritten)
      throw new Error('the first read is not what was written');
    return { seconds, cpuSeconds, bytes };
  } finally {
    await pando.stop();
    await rm(folder, { recursive: true });
  }
}

/** The first block of `golden`: in the log, where there is anything in it. */
async function readFirst(pando: Pando): Promise<Uint8Array> {
  const client = await NbdClient.connect({ path: pando.nbdSocket }, { exportName: 'golden/disk0' });
  try {
    const data = Buffer.alloc(READ_BYTES);
    await client.read(0, READ_BYTES, data, 0);
    return data;
  } finally {
    await client.close();
  }
}
