/** Exports under measurement, whoever serves them, and what one run of fio on them says. */
import { NbdClient } from '@pando/nbd/client';
import type { Bench } from './bench.ts';
import { fio } from './fio.ts';
import type { FioJob, FioResult } from './fio.ts';
import type { Pando } from './pando.ts';
import { nbdkitMemory, qemuNbd } from './peers.ts';
import type { NbdPeer, QemuAio } from './peers.ts';
import { ticksOf } from './processes.ts';

/** What fio writes to and reads from: one export, or several at once. */
export interface Served {
  readonly name: string;
  readonly uris: readonly string[];
  /** The servers. */
  readonly pids: readonly number[];
  /** Waits until the servers have done what they do behind their answers. */
  readonly settle: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

export type Load = Omit<FioJob, 'uris' | 'seed' | 'rampSeconds'>;

export interface Measured extends FioResult {
  readonly mibPerSecond: number;
  /** Processor time of the servers a request, in user mode and in the kernel. */
  readonly cpuMicros: number;
}

const DEFAULT_BLOCK_BYTES = 4096;
const TICK_MICROS = 10_000;

/** Exports of a server that the caller stops. */
export function fromPando(pando: Pando, exportNames: readonly string[], name = 'pando'): Served {
  return {
    ...{ name, uris: exportNames.map((exportName) => pando.uri(exportName)), pids: [pando.pid] },
    ...{ settle: () => pando.settle(), stop: async () => undefined },
  };
}

/** One qemu-nbd for each file, as qemu-nbd serves one disk. */
export async function fromQemuNbd(
  bench: Bench,
  folder: string,
  files: readonly string[],
  name: string,
  aio?: QemuAio,
): Promise<Served> {
  const peers: NbdPeer[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(peers.map(({ process }) => process.stop()));
  };
  try {
    for (const file of files) peers.push(await qemuNbd(bench, folder, file, { aio }));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    ...{ name, uris: peers.map(({ uri }) => uri), pids: peers.map(({ process }) => process.pid) },
    ...{ settle: async () => undefined, stop },
  };
}

export async function fromNbdkitMemory(
  bench: Bench,
  folder: string,
  raw: string,
  bytes: number,
): Promise<Served> {
  const { uri, process } = await nbdkitMemory(bench, folder, raw, bytes);
  return {
    ...{ name: 'nbdkit memory', uris: [uri], pids: [process.pid] },
    ...{ settle: async () => undefined, stop: () => process.stop() },
  };
}

/** One run of fio, all of it counted. `round` makes it another pattern and other data than in other rounds, alike for all sides. */
export async function measure(bench: Bench, served: Served, load: Load, round: number): Promise<Measured> {
  const job = { ...load, uris: served.uris, seed: bench.seed + round, rampSeconds: 0 };
  const before = await ticksOfAll(served.pids);
  const result = await fio(job, bench.pin);
  const ticks = (await ticksOfAll(served.pids)) - before;
  const requests = result.bytes / (load.blockBytes ?? DEFAULT_BLOCK_BYTES);
  return {
    ...result,
    mibPerSecond: result.bytesPerSecond / 2 ** 20,
    // Nothing is free, even where the clock does not see it.
    cpuMicros: (Math.max(ticks, 1) * TICK_MICROS) / requests,
  };
}

/** The same for the sake of caches and of code that is compiled while it runs. Nothing in a smoke run. */
export async function warmUp(bench: Bench, served: Served, load: Load, round: number): Promise<void> {
  if (!bench.isSmoke) await measure(bench, served, load, round);
}

/** Seconds that a FLUSH takes, on a connection of its own. */
export async function flushSeconds({ uris }: Served): Promise<number> {
  let seconds = 0;
  for (const uri of uris) {
    const { pathname, searchParams } = new URL(uri);
    const exportName = decodeURIComponent(pathname.slice(1));
    const client = await NbdClient.connect({ path: searchParams.get('socket')! }, { exportName });
    try {
      const started = performance.now();
      await client.flush();
      seconds += (performance.now() - started) / 1000;
    } finally {
      await client.close();
    }
  }
  return seconds;
}

/** What of it is told and kept for each run. */
export function requestsOf({ iops, p50, p99, cpuMicros }: Measured) {
  return { iops, p50, p99, cpuMicros };
}

/** What a row says about `cpuMicros`. */
export function cpuTime(what: string, metric = 'cpuMicros') {
  return { what: `${what}: processor time of the server`, unit: 'µs', better: 'less', metric } as const;
}

async function ticksOfAll(pids: readonly number[]): Promise<number> {
  let sum = 0;
  for (const pid of pids) sum += (await ticksOf(pid)) ?? NaN;
  return sum;
}
