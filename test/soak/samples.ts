/**
 * What a server takes, sampled from outside (/proc and its data directory), and whether any of it grows without bound.
 *
 * Garbage comes and goes, caches fill, the allocator keeps what it once had: single samples say little. So the samples after the
 * warm-up are cut into four quarters, and their medians are compared: something *grows* when each quarter lies
 * above the one before by more than a tolerance. What fills up or swings does not do that; what leaks at a steady
 * rate does, when it is more than three tolerances in the time.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

const QUARTERS = 4;
/** Fewer in a quarter, and its median says nothing. */
const QUARTER_SAMPLES_MIN = 8;
const HOUR_SECONDS = 3600;
const MiB = 2 ** 20;

/** What is measured: where bytes are, a share of what there is and a number of bytes that a quarter may lie above the one before. */
const MEASURES = {
  residentBytes: { share: 0.03, slack: 4 * MiB },
  /** Resident, without mapped files: heaps, buffers, caches. */
  anonymousBytes: { share: 0.03, slack: 4 * MiB },
  descriptors: { share: 0, slack: 2 },
  threads: { share: 0, slack: 0 },
  // A file of it is used again as large as it has become.
  logBytes: { share: 0.1, slack: 64 * MiB },
  /** Live chunks and garbage that was not collected yet. */
  segmentBytes: { share: 0.1, slack: 4 * MiB },
  segments: { share: 0.1, slack: 2 },
  indexBytes: { share: 0.1, slack: MiB },
  catalogBytes: { share: 0.1, slack: MiB },
} as const;

export type Measure = keyof typeof MEASURES;
export const measures = Object.keys(MEASURES) as readonly Measure[];

export type Sample = Readonly<Record<Measure, number>> & {
  /** Since the run began. */
  readonly seconds: number;
};

/** One row of the table in the end. */
export interface Course {
  readonly measure: Measure;
  /** The first sample after the warm-up. */
  readonly start: number;
  /** Medians of the quarters. */
  readonly quarters: readonly number[];
  readonly max: number;
  /** Median of the slopes between all pairs of samples (Theil and Sen). */
  readonly perHour: number;
  /** Undefined when there are too few samples to say. */
  readonly grows: boolean | undefined;
}

/** @throws Error when the process is gone */
export async function sample(pid: number, dataDirectory: string, seconds: number): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => {
    const found = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status);
    if (found === null) throw new Error(`process ${pid} has no ${name}: it has ended`);
    return Number(found[1]);
  };
  const descriptors = (await readdir(`/proc/${pid}/fd`)).length;
  const [log, segments, index, catalog] = await Promise.all(
    ['log', 'segments', 'index', 'catalog'].map((name) => contents(join(dataDirectory, name))),
  );
  return {
    seconds,
    residentBytes: field('VmRSS') * 1024,
    anonymousBytes: field('RssAnon') * 1024,
    descriptors,
    threads: field('Threads'),
    logBytes: log!.bytes,
    segmentBytes: segments!.bytes,
    segments: segments!.files,
    indexBytes: index!.bytes,
    catalogBytes: catalog!.bytes,
  };
}

/** Files may go while they are counted. */
async function contents(directory: string): Promise<{ readonly bytes: number; readonly files: number }> {
  let bytes = 0;
  let files = 0;
  for (const name of await readdir(directory)) {
    const found = await stat(join(directory, name)).catch(() => undefined);
    if (found === undefined) continue;
    bytes += found.size;
    files++;
  }
  return { bytes, files };
}

/** How each measure went from `warmUpSeconds` on. */
export function coursesOf(samples: readonly Sample[], warmUpSeconds: number): readonly Course[] {
  const warm = samples.filter(({ seconds }) => seconds >= warmUpSeconds);
  if (warm.length < QUARTERS) return [];
  return measures.map((measure) => {
    const values = warm.map((one) => one[measure]);
    const quarters = Array.from({ length: QUARTERS }, (_, i) =>
      median(
        values.slice(
          Math.floor((i * values.length) / QUARTERS),
          Math.floor(((i + 1) * values.length) / QUARTERS),
        ),
      ),
    );
    const { share, slack } = MEASURES[measure];
    const isAbove = (i: number): boolean => quarters[i]! > quarters[i - 1]! * (1 + share) + slack;
    const isLong = values.length >= QUARTERS * QUARTER_SAMPLES_MIN;
    return {
      measure,
      start: values[0]!,
      quarters,
      max: Math.max(...values),
      perHour: slopeOf(warm, measure) * HOUR_SECONDS,
      grows: isLong ? isAbove(1) && isAbove(2) && isAbove(3) : undefined,
    };
  });
}

export function tableOf(courses: readonly Course[]): string {
  const rows = [['', 'start', '1st quarter', '2nd', '3rd', '4th', 'max', 'slope/h', '']];
  for (const { measure, start, quarters, max, perHour, grows } of courses) {
    const isBytes = measure.endsWith('Bytes');
    const show = (value: number): string => (isBytes ? `${(value / MiB).toFixed(1)} MiB` : value.toFixed(0));
    const verdict = grows === undefined ? 'too short to say' : grows ? 'GROWS' : 'flat';
    rows.push([measure, ...[start, ...quarters, max, perHour].map(show), verdict]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >>> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function slopeOf(samples: readonly Sample[], measure: Measure): number {
  const slopes: number[] = [];
  for (const [i, a] of samples.entries()) {
    for (const b of samples.slice(i + 1)) slopes.push((b[measure] - a[measure]) / (b.seconds - a.seconds));
  }
  return median(slopes);
}
