/** How fast is garbage collected, and what does a guest notice of it? */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Bench, Question } from '../harness/bench.ts';
import { fio, fioWhile } from '../harness/fio.ts';
import type { FioJob } from '../harness/fio.ts';
import { syncDisk } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { run } from '../harness/processes.ts';
import { alternate, compare, compareToLimit } from '../harness/rounds.ts';
import type { Side } from '../harness/rounds.ts';

const PREPARE = fileURLToPath(new URL('prepare.ts', import.meta.url));
const MiB = 2 ** 20;
const SIZES = {
  full: { vms: 12, chunks: 500_000, seconds: 8, guestBytes: 256 * MiB },
  smoke: { vms: 6, chunks: 512, seconds: 0.2, guestBytes: MiB },
} as const;
/** Writes come at fixed times, whether or not earlier ones were answered, as long as fewer than so many wait. */
const GUEST = { rw: 'randwrite', iopsMax: 2000, depth: 256 } as const;
const COLLECTION_SECONDS_MAX = 600;
const LOAD_SECONDS_MIN = 1;
const CHUNKS_A_SECOND = 1_000_000;
/** Sealed: never written to again, so rounds may share them. */
const SEGMENTS = 'segments';

interface GuestVm {
  readonly attachedClients: number;
}

interface Report {
  readonly liveChunks: number;
  readonly deadChunks: number;
  readonly compactedSegments: number;
  readonly droppedSegments: number;
}

export const question: Question = {
  name: 'gc',
  title: 'Garbage collection, and writes meanwhile',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const { vms, chunks } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const root = await bench.folder('gc');
    const prepared = join(root, 'prepared');
    await run(process.execPath, [PREPARE, prepared, String(vms), String(chunks), String(bench.seed)]);
    const sides = collecting(bench, root, prepared);
    const samples = await alternate(sides, bench.scale.rounds, bench.say);
    const [alone, meanwhile] = sides.map(({ name }) => name) as [string, string];
    const shared = { question: 'gc', side: meanwhile } as const;
    const speed = { what: 'chunks, alive and dead', unit: '1/s', better: 'more' } as const;
    const p99 = { what: 'write, p99', unit: 'ms', better: 'less', metric: 'p99' } as const;
    return [
      compareToLimit(samples, {
        ...{ ...shared, ...speed, metric: 'chunksPerSecond' },
        ...{ row: '14', limit: CHUNKS_A_SECOND },
      }),
      compare(samples, { ...shared, ...p99, against: alone, target: { row: '14', ratio: 2 } }),
    ];
  },
};

/** The first side of a round starts a server on a copy of what was prepared, the second one collects and stops it. */
function collecting(bench: Bench, root: string, prepared: string): readonly Side[] {
  const { vms, chunks, seconds, guestBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const folder = join(root, 'round');
  let pando: Pando | undefined;
  const end = async (): Promise<void> => {
    await pando?.stop();
    pando = undefined;
    await rm(folder, { recursive: true, force: true });
  };
  const jobOf = (server: Pando, round: number): FioJob => ({
    ...{ ...GUEST, uris: [server.uri('guest/disk0')], sizeBytes: guestBytes, seed: bench.seed + round },
  });
  const endingOnFailure = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      await end();
      throw error;
    }
  };
  return [
    {
      name: 'no collection',
      run: (round) =>
        endingOnFailure(async () => {
          await mkdir(folder);
          await restore(prepared, join(folder, 'data'));
          await syncDisk(folder);
          pando = await Pando.start(bench, { folder });
          const disks = [{ name: 'disk0', sizeBytes: guestBytes }];
          await pando.rest.must('POST', '/vms', { name: 'guest', disks });
          // Not with code that has not been compiled yet: that would make it look slow.
          const job = { ...jobOf(pando, round), seconds, rampSeconds: seconds / 2 };
          const { p50, p99, iops } = await fio(job, bench.pin);
          return { p50, p99, iops };
        }),
    },
    {
      name: 'collection',
      run: (round) =>
        endingOnFailure(async () => {
          const server = pando!;
          const job = { ...jobOf(server, round), seconds: COLLECTION_SECONDS_MAX, rampSeconds: 0 };
          const { result, done } = await fioWhile(job, bench.pin, async () => {
            while (((await server.rest.must('GET', '/vms/guest')) as GuestVm).attachedClients === 0)
              await setTimeout(10);
            const started = performance.now();
            const report = (await server.rest.job('/gc')) as Report;
            const collectionSeconds = (performance.now() - started) / 1000;
            // A tiny collection may be over before fio has written anything.
            if (collectionSeconds < LOAD_SECONDS_MIN)
              await setTimeout((LOAD_SECONDS_MIN - collectionSeconds) * 1000);
            return { ...report, collectionSeconds };
          });
          const { liveChunks, deadChunks, collectionSeconds, droppedSegments, compactedSegments } = done;
          if (liveChunks + deadChunks < vms * chunks)
            throw new Error(`only ${JSON.stringify(done)} was found`);
          await end();
          return {
            ...{ p50: result.p50, p99: result.p99, iops: result.iops },
            ...{ collectionSeconds, liveChunks, deadChunks, droppedSegments, compactedSegments },
            chunksPerSecond: (liveChunks + deadChunks) / collectionSeconds,
          };
        }),
    },
  ];
}

/** A copy of a data directory, whose segments are hard links. */
async function restore(from: string, to: string): Promise<void> {
  await mkdir(to);
  for (const name of await readdir(from)) {
    const how = name === SEGMENTS ? '-al' : '-a';
    await run('cp', [how, '--reflink=auto', join(from, name), to]);
  }
}
