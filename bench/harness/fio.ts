/** fio on an NBD export, by its `nbd` engine (libnbd), and what its JSON says. */
import { background, run } from './processes.ts';
import type { Load, Pinning } from './processes.ts';

export interface FioJob {
  readonly uri: string;
  readonly rw: 'randread' | 'randwrite' | 'read';
  readonly depth: number;
  /** Bytes from the start of the disk that are touched. */
  readonly sizeBytes: number;
  /** Absent: once over `sizeBytes`. */
  readonly seconds?: number;
  readonly seed: number;
}

/** Per second, and latencies in milliseconds. */
export interface FioResult {
  readonly iops: number;
  readonly p50: number;
  readonly p99: number;
}

interface FioJson {
  readonly jobs: readonly {
    readonly error: number;
    readonly read: FioDirection;
    readonly write: FioDirection;
  }[];
}

interface FioDirection {
  readonly iops: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

const RAMP_SECONDS_MAX = 1;

function fioArguments({ uri, rw, depth, sizeBytes, seconds, seed }: FioJob): string[] {
  const ramp = Math.min(RAMP_SECONDS_MAX, (seconds ?? 0) / 4);
  return [
    ...['--name=bench', '--ioengine=nbd', `--uri=${uri}`, '--output-format=json'],
    ...[`--rw=${rw}`, `--bs=${rw === 'read' ? '1M' : '4k'}`, `--iodepth=${depth}`, `--size=${sizeBytes}`],
    ...[`--randseed=${seed}`, '--norandommap=1', '--group_reporting=1'],
    // Data that neither compresses nor repeats: the worst case for a store that deduplicates.
    ...['--refill_buffers=1', '--buffer_compress_percentage=0'],
    ...(seconds === undefined ? [] : ['--time_based=1', `--runtime=${seconds}s`, `--ramp_time=${ramp}s`]),
  ];
}

/** @throws Error when fio fails or did nothing */
export async function fio(job: FioJob, pin: Pinning): Promise<FioResult> {
  const output = await run('fio', fioArguments(job), { prefix: pin.client });
  // The engine prints a greeting before the JSON.
  const parsed = JSON.parse(output.slice(output.search(/^\{/m))) as FioJson;
  const [result] = parsed.jobs;
  const direction = job.rw === 'randwrite' ? result?.write : result?.read;
  if (result?.error !== 0 || direction === undefined || direction.total_ios === 0) {
    throw new Error(`fio did not do its job ${JSON.stringify(job)}:\n${output}`);
  }
  const milliseconds = (name: string): number => (direction.clat_ns.percentile?.[name] ?? 0) / 1e6;
  return { iops: direction.iops, p50: milliseconds('50.000000'), p99: milliseconds('99.000000') };
}

/** The same as a load that goes on until it is stopped. */
export function fioLoad(job: FioJob, pin: Pinning): Load {
  return background('fio', fioArguments(job), { prefix: pin.client });
}
