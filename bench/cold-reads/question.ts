/** How fast are random 4 KiB reads of what is in the page cache, but not in the server's own? */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench, Question } from '../harness/bench.ts';
import { cpuTime, fromPando, fromQemuNbd, measure, requestsOf, warmUp } from '../harness/exports.ts';
import type { Served } from '../harness/exports.ts';
import { packData } from '../harness/images.ts';
import type { DiskImage } from '../harness/images.ts';
import { syncDisk, warmAll } from '../harness/page-cache.ts';
import { Pando } from '../harness/pando.ts';
import { compressedQcow2Of, qcow2Of } from '../harness/peers.ts';
import { alternate, compareEach } from '../harness/rounds.ts';
import type { Row, Samples } from '../harness/rounds.ts';
import { uniqueData } from './unique-data.ts';

const MiB = 1024 * 1024;
const SIZES = {
  full: { smallBytes: 128 * MiB, largeBytes: 4096 * MiB },
  smoke: { smallBytes: MiB, largeBytes: 4 * MiB },
} as const;

const PLAIN = 'qemu-nbd qcow2';
const COMPRESSED = 'qemu-nbd qcow2 -c';
const WARM_UP_SECONDS = 10;
const READS = { rw: 'randread', depth: 32 } as const;

/** One to be read right after a start, one that is much larger than any cache. */
type Disks = Readonly<Record<'small' | 'large', DiskImage>>;

interface Server {
  readonly name: string;
  /** Starts a server of one of the disks, with its files in the page cache. */
  readonly start: (disk: keyof Disks) => Promise<Served>;
  /** When all has been asked. */
  readonly end: () => Promise<void>;
}

async function makeDisks(bench: Bench, folder: string): Promise<Disks> {
  const { smallBytes, largeBytes } = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const [booted] = await bench.images();
  return {
    small: await packData(booted!, join(folder, 'small.raw'), smallBytes),
    large: await uniqueData(booted!, join(folder, 'large.raw'), largeBytes, bench.seed),
  };
}

async function makeServers(bench: Bench, folder: string, disks: Disks): Promise<readonly Server[]> {
  const servers = [await pandoServer(bench, folder, disks)];
  if (bench.has('qemu-nbd', 'qemu-img')) {
    servers.push(await qemuServer(bench, folder, disks, PLAIN, qcow2Of));
    servers.push(await qemuServer(bench, folder, disks, COMPRESSED, compressedQcow2Of));
  }
  // The page cache is for what is served.
  for (const { path } of Object.values(disks)) await rm(path);
  await syncDisk(folder);
  return servers;
}

async function pandoServer(bench: Bench, folder: string, disks: Disks): Promise<Server> {
  const started = performance.now();
  const first = await Pando.start(bench, { folder });
  try {
    for (const [name, { path }] of Object.entries(disks)) await first.upload(path, name);
    await first.settle();
  } catch (error) {
    await first.stop();
    throw error;
  }
  sayPrepared(bench, 'pando', started);
  const served = (pando: Pando, disk: keyof Disks): Served => fromPando(pando, [`${disk}/disk0`]);
  // A start takes seconds, which a smoke run does not have.
  if (bench.isSmoke) {
    return { name: 'pando', start: async (disk) => served(first, disk), end: () => first.stop() };
  }
  await first.stop();
  return {
    name: 'pando',
    start: async (disk) => {
      await warmAll(first.dataDirectory);
      const pando = await Pando.start(bench, { folder });
      return { ...served(pando, disk), stop: () => pando.stop() };
    },
    end: async () => undefined,
  };
}

async function qemuServer(
  bench: Bench,
  folder: string,
  disks: Disks,
  name: string,
  make: (raw: string, target: string) => Promise<void>,
): Promise<Server> {
  const started = performance.now();
  const fileOf = (disk: string): string => join(folder, `${disk}-${make.name}.qcow2`);
  for (const [disk, { path }] of Object.entries(disks)) await make(path, fileOf(disk));
  sayPrepared(bench, name, started);
  return {
    name,
    start: async (disk) => {
      await warmAll(fileOf(disk));
      return fromQemuNbd(bench, folder, [fileOf(disk)], name);
    },
    end: async () => undefined,
  };
}

function sayPrepared(bench: Bench, name: string, started: number): void {
  bench.say(`  prepared: ${name} (${((performance.now() - started) / 1000).toFixed(0)} s)`);
}

function rowsOf(samples: Samples, what: string, row: string, ratios: readonly [number, number]): Row[] {
  const [plain, compressed] = ratios;
  const peers = [PLAIN, COMPRESSED].filter((name) => samples.has(name));
  const targets = { [PLAIN]: { row, ratio: plain }, [COMPRESSED]: { row, ratio: compressed } };
  const shared = { question: 'cold-reads', side: 'pando' } as const;
  const speed = { what, unit: '1/s', better: 'more', metric: 'iops' } as const;
  return [
    ...compareEach(samples, { ...shared, ...speed }, peers, targets),
    ...compareEach(samples, { ...shared, ...cpuTime(what) }, peers),
  ];
}

async function justStarted(bench: Bench, servers: readonly Server[], { small }: Disks): Promise<Row[]> {
  const load = { ...READS, sizeBytes: small.sizeBytes };
  const sides = servers.map(({ name, start }) => ({
    name,
    run: async (round: number) => {
      const served = await start('small');
      try {
        return requestsOf(await measure(bench, served, load, round));
      } finally {
        await served.stop();
      }
    },
  }));
  const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
  return rowsOf(samples, 'just started, each block once', '2', [1, 3]);
}

async function muchData(bench: Bench, servers: readonly Server[], { large }: Disks): Promise<Row[]> {
  const load = { ...READS, sizeBytes: large.sizeBytes };
  const running: Served[] = [];
  try {
    for (const { start } of servers) {
      const served = await start('large');
      running.push(served);
      // No round has this number.
      await warmUp(bench, served, { ...load, seconds: WARM_UP_SECONDS }, bench.scale.rounds);
    }
    const sides = running.map((served) => ({
      name: served.name,
      run: async (round: number) =>
        requestsOf(await measure(bench, served, { ...load, seconds: bench.scale.fioSeconds }, round)),
    }));
    const samples = await alternate(sides, bench.scale.rounds, bench.say, bench.isSmoke);
    return rowsOf(samples, 'much more than the cache holds', '2b', [1, 5]);
  } finally {
    for (const { stop } of running) await stop();
  }
}

export const question: Question = {
  name: 'cold-reads',
  title: 'Random 4 KiB reads, depth 32, with nothing warm but the page cache',

  async run(bench) {
    if (!bench.has('fio')) return [];
    const folder = await bench.folder('cold-reads');
    const disks = await makeDisks(bench, folder);
    const servers = await makeServers(bench, folder, disks);
    try {
      return [...(await justStarted(bench, servers, disks)), ...(await muchData(bench, servers, disks))];
    } finally {
      for (const { end } of servers) await end();
    }
  },
};
