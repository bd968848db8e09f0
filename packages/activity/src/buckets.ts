/**
 * Time in buckets: what a VM wrote in each five minutes of the last day, each hour of the last month, each day of the last year. Pure
 * functions over lists of buckets in order of their starts, without those in which nothing was written.
 *
 * Hours are sums of five minutes, and days of hours, made once the stretch has ended, from what is kept of the finer grain.
 */

/** Milliseconds of a bucket, and how many lie between the oldest that is kept and now. */
export const GRAINS = {
  '5m': { ms: 5 * 60_000, kept: 288 },
  '1h': { ms: 60 * 60_000, kept: 720 },
  '1d': { ms: 24 * 60 * 60_000, kept: 366 },
} as const satisfies Record<string, { ms: number; kept: number }>;

export type Grain = keyof typeof GRAINS;
export const GRAIN_NAMES = Object.keys(GRAINS) as readonly Grain[];

/** What came of the chunks that were destaged; what is trimmed, or written as zeros by command, is in none of it. */
export interface Amounts {
  readonly writtenBytes: number;
  readonly zeroBytes: number;
  /** Of chunks that were in the store already. */
  readonly knownBytes: number;
  readonly newBytes: number;
  /** What the new ones came to, compressed. */
  readonly storedBytes: number;
  /** Of the new ones, those in runs that compression could not make shorter: as random bytes are. */
  readonly rawBytes: number;
}

export interface Bucket extends Amounts {
  /** Milliseconds since 1970; a multiple of the grain. */
  readonly start: number;
  /** The most `rawBytes` of an hour of it; of five minutes and hours their own. */
  readonly peakRawBytes: number;
}

export type History = Readonly<Record<Grain, readonly Bucket[]>>;

export const EMPTY: History = { '5m': [], '1h': [], '1d': [] };

export function startOf(grain: Grain, at: number): number {
  return Math.floor(at / GRAINS[grain].ms) * GRAINS[grain].ms;
}

export function bucketOf(at: number, amounts: Amounts): Bucket {
  return { start: startOf('5m', at), ...amounts, peakRawBytes: amounts.rawBytes };
}

function sum(a: Bucket, b: Bucket): Bucket {
  return {
    start: a.start,
    writtenBytes: a.writtenBytes + b.writtenBytes,
    zeroBytes: a.zeroBytes + b.zeroBytes,
    knownBytes: a.knownBytes + b.knownBytes,
    newBytes: a.newBytes + b.newBytes,
    storedBytes: a.storedBytes + b.storedBytes,
    rawBytes: a.rawBytes + b.rawBytes,
    peakRawBytes: a.peakRawBytes + b.peakRawBytes,
  };
}

/** Both lists as one; buckets of one start are summed. */
export function merged(some: readonly Bucket[], more: readonly Bucket[]): Bucket[] {
  const all = [...some, ...more].sort((a, b) => a.start - b.start);
  const out: Bucket[] = [];
  for (const bucket of all) {
    if (out.at(-1)?.start === bucket.start) out.push(sum(out.pop()!, bucket));
    else out.push(bucket);
  }
  return out;
}

/** The coarser buckets that finer ones make. */
function coarser(grain: '1h' | '1d', finer: readonly Bucket[]): Bucket[] {
  const out: Bucket[] = [];
  for (const bucket of finer) {
    const start = startOf(grain, bucket.start);
    const last = out.at(-1);
    if (last?.start !== start) {
      out.push({ ...bucket, start });
      continue;
    }
    const peak = Math.max(last.peakRawBytes, bucket.peakRawBytes);
    const both = sum(last, bucket);
    // Of an hour the whole, of a day its largest hour.
    out[out.length - 1] = { ...both, peakRawBytes: grain === '1h' ? both.rawBytes : peak };
  }
  return out;
}

/**
 * The history as it is to be kept at `now`: hours and days that have ended are added, what is too old is dropped, and what lies in the future,
 * from a clock that was wrong. Lists that stay are the same objects.
 */
export function rolledUp(history: History, now: number): History {
  const past = { ...history };
  for (const grain of GRAIN_NAMES) past[grain] = dropWhere(past[grain], ({ start }) => start > now);
  const hours = withEnded('1h', past['1h'], past['5m'], now);
  const days = withEnded('1d', past['1d'], hours, now);
  return {
    '5m': recent('5m', past['5m'], now),
    '1h': recent('1h', hours, now),
    '1d': recent('1d', days, now),
  };
}

/** The five minutes of `rolledUp`, by themselves: while the hour lasts in which the history was rolled up last. */
export function keptOfDay(buckets: readonly Bucket[], now: number): readonly Bucket[] {
  return recent(
    '5m',
    dropWhere(buckets, ({ start }) => start > now),
    now,
  );
}

/** As `rolledUp`, with the hour and the day that have not ended yet. */
export function upToNow(history: History, now: number): History {
  const kept = rolledUp(history, now);
  const since = (buckets: readonly Bucket[], grain: Grain): Bucket[] =>
    buckets.filter(({ start }) => start >= startOf(grain, now));
  const hours = [...kept['1h'], ...coarser('1h', since(kept['5m'], '1h'))];
  return { '5m': kept['5m'], '1h': hours, '1d': [...kept['1d'], ...coarser('1d', since(hours, '1d'))] };
}

function withEnded(
  grain: '1h' | '1d',
  buckets: readonly Bucket[],
  finer: readonly Bucket[],
  now: number,
): readonly Bucket[] {
  const last = buckets.at(-1)?.start ?? -Infinity;
  const open = startOf(grain, now);
  const ended = coarser(grain, finer).filter(({ start }) => start > last && start < open);
  return ended.length === 0 ? buckets : [...buckets, ...ended];
}

function recent(grain: Grain, buckets: readonly Bucket[], now: number): readonly Bucket[] {
  const oldest = startOf(grain, now) - GRAINS[grain].kept * GRAINS[grain].ms;
  return dropWhere(buckets, ({ start }) => start < oldest);
}

function dropWhere(buckets: readonly Bucket[], isOut: (bucket: Bucket) => boolean): readonly Bucket[] {
  return buckets.some(isOut) ? buckets.filter((bucket) => !isOut(bucket)) : buckets;
}

export function totalOf(buckets: readonly Bucket[]): {
  readonly newBytes: number;
  readonly rawBytes: number;
} {
  let newBytes = 0;
  let rawBytes = 0;
  for (const bucket of buckets) {
    newBytes += bucket.newBytes;
    rawBytes += bucket.rawBytes;
  }
  return { newBytes, rawBytes };
}
