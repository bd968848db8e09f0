/** fio on NBD exports, by its `nbd` engine (libnbd), and what its JSON says. */
import { background, run } from './processes.ts';
import type { Load, Pinning } from './processes.ts';

export interface FioJob {
  /** One job runs on each, all at once; the numbers are of all together. */
  readonly uris: readonly string[];
  readonly rw: 'randread' | 'randwrite' | 'read' | 'write';
  /** 4 KiB unless told. */
  readonly blockBytes?: number;
  readonly depth: number;
  /** Bytes of the disk that are touched, from its start unless told. */
  readonly sizeBytes: number;
  readonly offsetBytes?: number;
  /** Absent: once over `sizeBytes`, random or not: each block comes exactly once. */
  readonly seconds?: number;
  /** Seconds at the start that are not counted; a quarter of `seconds`, at most one, unless told. */
  readonly rampSeconds?: number;
  /** A FLUSH after so many writes. */
  readonly flushEvery?: number;
  /** At most so many requests a second. */
  readonly iopsMax?: number;
  /** Share of each block that compresses, percent; 0, the default, is data that neither compresses nor repeats. */
  readonly compressiblePercent?: number;
  readonly seed: number;
}

/** Latencies in milliseconds. */
export interface FioResult {
  /** Requests a second, without flushes. */
  readonly iops: number;
  readonly bytesPerSecond: number;
  /** From the first request to the last, the ramp left out. */
  readonly seconds: number;
  readonly p50: number;
  readonly p99: number;
  /** Of one FLUSH; 0 without any. */
  readonly flushP50: number;
  /** What was read or written, the ramp left out. */
  readonly bytes: number;
}

interface FioJson {
  readonly jobs: readonly {
    readonly error: number;
    readonly read: FioDirection;
    readonly write: FioDirection;
    readonly sync: { readonly lat_ns?: FioLatency };
  }[];
}

interface FioLatency {
  readonly percentile?: Readonly<Record<string, number>>;
}

interface FioDirection {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly runtime: number;
  readonly io_bytes: number;
  readonly total_ios: number;
  readonly clat_ns: FioLatency;
}

const RAMP_SECONDS_MAX = 1;

function fioArguments(job: FioJob): string[] {
  const { uris, rw, blockBytes = 4096, depth, sizeBytes, offsetBytes = 0, seconds, seed } = job;
  const ramp = job.rampSeconds ?? Math.min(RAMP_SECONDS_MAX, (seconds ?? 0) / 4);
  return [
    ...['--output-format=json', '--ioengine=nbd', '--group_reporting=1'],
    ...[`--rw=${rw}`, `--bs=${blockBytes}`, `--iodepth=${depth}`],
    ...[`--size=${sizeBytes}`, `--offset=${offsetBytes}`],
    ...[`--randseed=${seed}`, `--norandommap=${seconds === undefined ? 0 : 1}`],
    ...['--refill_buffers=1', `--buffer_compress_percentage=${job.compressiblePercent ?? 0}`],
    ...(job.flushEvery === undefined ? [] : [`--fsync=${job.flushEvery}`]),
    ...(job.iopsMax === undefined ? [] : [`--rate_iops=${job.iopsMax}`]),
    ...(seconds === undefined
      ? []
      : ['--time_based=1', `--runtime=${milliseconds(seconds)}`, `--ramp_time=${milliseconds(ramp)}`]),
    ...uris.flatMap((uri, index) => [`--name=bench-${index}`, `--uri=${uri}`]),
  ];
}

/** Of seconds, fio takes whole ones. */
function milliseconds(seconds: number): string {
  return `${Math.round(seconds * 1000)}ms`;
}

/** @throws Error when fio fails or did nothing */
export async function fio(job: FioJob, pin: Pinning): Promise<FioResult> {
  return resultOf(job, await run('fio', fioArguments(job), { prefix: pin.prefix }));
}

function resultOf(job: FioJob, output: string): FioResult {
  // The engine prints a greeting before the JSON.
  const parsed = JSON.parse(output.slice(output.search(/^\{/m))) as FioJson;
  const [result] = parsed.jobs;
  const direction = job.rw === 'randwrite' || job.rw === 'write' ? result?.write : result?.read;
  if (result?.error !== 0 || direction === undefined || direction.total_ios === 0) {
    throw new Error(`fio did not do its job ${JSON.stringify(job)}:\n${output}`);
  }
  const latency = (of: FioLatency | undefined, name: string): number => (of?.percentile?.[name] ?? 0) / 1e6;
  return {
    ...{ iops: direction.iops, bytesPerSecond: direction.bw_bytes, seconds: direction.runtime / 1000 },
    p50: latency(direction.clat_ns, '50.000000'),
    p99: latency(direction.clat_ns, '99.000000'),
    flushP50: latency(result.sync.lat_ns, '50.000000'),
    bytes: direction.io_bytes,
  };
}

/** As long as `work` takes, at most the job's time: what fio says, and what came of the work. */
export async function fioWhile<T>(
  job: FioJob,
  pin: Pinning,
  work: () => Promise<T>,
): Promise<{ readonly result: FioResult; readonly done: T }> {
  const load = fioLoad(job, pin);
  let done: T;
  try {
    done = await work();
    load.mustRun();
  } finally {
    await load.stop();
  }
  return { result: resultOf(job, load.printed()), done };
}

/** The same as a load that goes on until it is stopped. */
export function fioLoad(job: FioJob, pin: Pinning): Load {
  return background('fio', fioArguments(job), { prefix: pin.prefix });
}
