/**
 * The tripwire's rule: does what a VM writes look as when its disk is being encrypted? A pure function of its history.
 *
 * Encryption turns what was there into *raw* bytes: new, because no other chunk is like them, and of no use to compress. So of the last hour, and
 * of the last day, it is asked whether raw bytes are both
 *
 * - **many**: more than `floorBytes`, and more than `factor` times the VM's own mark. The mark of a window is the largest of the
 *   last 90 days, of their busiest hours or of the days as a whole: a dump once a week or a month is a habit. Once there are enough days to have
 *   seen a habit twice, it is the second largest, so that one day that was different, of an attack, too, sets no mark. The first two days, in which a
 *   machine is set up and filled, count in none.
 * - **most of what is new**: at least `SHARE_MIN` of the new bytes, and `SHARE_LIFT` above the VM's usual share, the median of its days.
 *
 * Both, because each alone is daily life: a database that is loaded writes much, and compresses well; a package that is downloaded does not, and
 * is small. Days that touch the window are in no mark, so a jump cannot hide behind itself. Who wrote nothing but raw bytes before shows no
 * jump when they are encrypted: with a usual share above `SHARE_BLIND` the rule is blind, and says so.
 */
import { GRAINS, startOf, totalOf, type Bucket, type History } from './buckets.ts';

export interface Rule {
  readonly factor: number;
  readonly floorBytes: number;
}

const MiB = 2 ** 20;
const DAY_MS = GRAINS['1d'].ms;

export const RULES = {
  low: { factor: 10, floorBytes: 8192 * MiB },
  normal: { factor: 4, floorBytes: 1024 * MiB },
  high: { factor: 2, floorBytes: 256 * MiB },
} as const satisfies Record<string, Rule>;

export const SHARE_MIN = 0.5;
export const SHARE_LIFT = 0.3;
export const SHARE_BLIND = 0.65;
/** Days that marks are taken of, and how many it takes until one of them may be an exception. */
export const MARK_DAYS = 90;
const EXCEPTION_DAYS = 62;
const SET_UP_MS = 2 * DAY_MS;
/** A week after it was set up: what happens once a week has happened. */
export const LEARNING_MS = SET_UP_MS + 7 * DAY_MS;
/** On fewer days with anything new, nothing is usual. */
const SHARE_DAYS_MIN = 3;

const WINDOWS = { hour: 12, day: 288 } as const;
export type Window = keyof typeof WINDOWS;
/** Longer without anything like it, and what lies before is something else. */
const PAUSE_MS: Readonly<Record<Window, number>> = { hour: GRAINS['1h'].ms, day: 6 * GRAINS['1h'].ms };

export interface Jump {
  readonly window: Window;
  /** Start of the first five minutes, in the last day, that look like it. */
  readonly since: number;
  /** In the window, and what it would have taken. */
  readonly rawBytes: number;
  readonly newBytes: number;
  readonly limitBytes: number;
}

export interface Judgement {
  /** `learning`: too young; `blind`: it writes little that compresses anyway. */
  readonly state: 'learning' | 'blind' | 'quiet' | 'jump';
  /** Share of new bytes that are raw, on the median day. */
  readonly usualShare: number;
  /** Raw bytes that it takes in each window, besides their share. */
  readonly limits: Readonly<Record<Window, number>>;
  /** When it has learned enough. */
  readonly readyAt?: number;
  readonly jump?: Jump;
}

/** False where `judge` sees no jump, whatever the machine did before: as a rule, and at no cost. */
export function mayBeJump(lastDay: readonly Bucket[], { floorBytes }: Rule): boolean {
  return totalOf(lastDay).rawBytes >= floorBytes;
}

/** @param history what `rolledUp` makes; the hours are not looked at */
export function judge(history: History, now: number, rule: Rule): Judgement {
  const oldest = [history['1d'][0], history['1h'][0], history['5m'][0]].map((bucket) => bucket?.start ?? now);
  const first = Math.min(...oldest);
  const end = startOf('5m', now) - DAY_MS;
  const begin = Math.max(end - MARK_DAYS * DAY_MS, startOf('1d', first) + SET_UP_MS);
  const days = history['1d'].filter(({ start }) => start >= begin && start + DAY_MS <= end);
  const shares = days.filter(({ newBytes }) => newBytes > 0).map((day) => day.rawBytes / day.newBytes);
  const usualShare = shares.length < SHARE_DAYS_MIN ? 0 : median(shares);
  const rank = end - begin < EXCEPTION_DAYS * DAY_MS ? 0 : 1;
  const limitOf = (marks: number[]): number => {
    return Math.max(rule.floorBytes, rule.factor * (marks.sort((a, b) => b - a)[rank] ?? 0));
  };
  const limits = {
    hour: limitOf(days.map(({ peakRawBytes }) => peakRawBytes)),
    day: limitOf(days.map(({ rawBytes }) => rawBytes)),
  };
  const readyAt = first + LEARNING_MS;
  if (now < readyAt) return { state: 'learning', usualShare, limits, readyAt };
  if (usualShare > SHARE_BLIND) return { state: 'blind', usualShare, limits };
  for (const window of ['hour', 'day'] as const) {
    const jump = jumpIn(window, history['5m'], now, limits[window], usualShare);
    if (jump !== undefined) return { state: 'jump', usualShare, limits, jump };
  }
  return { state: 'quiet', usualShare, limits };
}

function jumpIn(
  window: Window,
  buckets: readonly Bucket[],
  now: number,
  limitBytes: number,
  usualShare: number,
): Jump | undefined {
  const from = startOf('5m', now) - WINDOWS[window] * GRAINS['5m'].ms;
  const { newBytes, rawBytes } = totalOf(buckets.filter(({ start }) => start >= from));
  const shareMin = Math.max(SHARE_MIN, usualShare + SHARE_LIFT);
  if (rawBytes < limitBytes || rawBytes < newBytes * shareMin) return undefined;
  return { window, since: beginningOf(window, buckets, from, rawBytes), rawBytes, newBytes, limitBytes };
}

/**
 * Going back from now: the first five minutes that look like it, before a stretch without any. A quarter of the mean pace of the window is as slow as
 * a part of it goes.
 */
function beginningOf(window: Window, buckets: readonly Bucket[], from: number, rawBytes: number): number {
  const pace = rawBytes / WINDOWS[window] / 4;
  const like = buckets.filter((b) => b.rawBytes >= pace && b.rawBytes >= SHARE_MIN * b.newBytes);
  let since = like.at(-1)?.start ?? from;
  for (const { start } of like.reverse()) {
    if (since - start > PAUSE_MS[window]) break;
    since = start;
  }
  return since;
}

function median(values: number[]): number {
  const sorted = values.sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
