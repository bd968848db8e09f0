/** Synthetic machines: what they write in five minutes, from a seed. Sizes are what such machines were seen to write, within a factor of a few. */
import { GRAINS, rolledUp, EMPTY, bucketOf, type Amounts, type Bucket, type History } from '../buckets.ts';
import { judge, type Jump, type Rule } from '../detector.ts';

export const MiB = 2 ** 20;
export const GiB = 2 ** 30;
export const STEP_MS = GRAINS['5m'].ms;
export const HOUR_MS = GRAINS['1h'].ms;
export const DAY_MS = GRAINS['1d'].ms;
/** A Monday, 00:00 UTC. */
export const MONDAY_MS = Date.UTC(2026, 0, 5);

/** What is written in the five minutes from `at` on; `at` is since the machine was made. */
export type Profile = (at: number, random: () => number) => Amounts;

/** New bytes, of which a share is raw; what else compresses to a third. */
export function fresh(newBytes: number, rawShare: number, knownBytes = 0): Amounts {
  const [bytes, known] = [Math.round(newBytes), Math.round(knownBytes)];
  const rawBytes = Math.round(bytes * rawShare);
  return {
    writtenBytes: bytes + known,
    zeroBytes: 0,
    knownBytes: known,
    newBytes: bytes,
    storedBytes: rawBytes + Math.round((bytes - rawBytes) / 3),
    rawBytes,
  };
}

export function plus(a: Amounts, b: Amounts): Amounts {
  return {
    writtenBytes: a.writtenBytes + b.writtenBytes,
    zeroBytes: a.zeroBytes + b.zeroBytes,
    knownBytes: a.knownBytes + b.knownBytes,
    newBytes: a.newBytes + b.newBytes,
    storedBytes: a.storedBytes + b.storedBytes,
    rawBytes: a.rawBytes + b.rawBytes,
  };
}

export const NOTHING: Amounts = fresh(0, 0);

const hourOf = (at: number): number => Math.floor(at / HOUR_MS) % 24;
const weekdayOf = (at: number): number => Math.floor(at / DAY_MS) % 7;
const within = (random: () => number, low: number, high: number): number => low + random() * (high - low);

/** Little all the time; on Tuesdays at 03:00 half an hour of upgrades: packages, which are raw, and what is in them. */
export const webServer: Profile = (at, random) => {
  const idle = fresh(within(random, 0.5, 4) * MiB, within(random, 0.02, 0.2));
  if (weekdayOf(at) !== 1 || hourOf(at) !== 3 || at % HOUR_MS >= 30 * 60_000) return idle;
  return plus(idle, fresh(within(random, 100, 400) * MiB, within(random, 0.2, 0.4)));
};

/** Much that compresses, and on Sundays at 01:00 for an hour a compressed dump. */
export const database: Profile = (at, random) => {
  const busy = hourOf(at) >= 7 && hourOf(at) < 20 ? 4 : 1;
  const pages = fresh(
    busy * within(random, 20, 80) * MiB,
    within(random, 0, 0.05),
    within(random, 0, 10) * MiB,
  );
  const isDump = weekdayOf(at) === 6 && hourOf(at) === 1;
  return isDump ? plus(pages, fresh(within(random, 1500, 2000) * MiB, 0.97)) : pages;
};

/** Documents in working hours, many of them compressed by their own format. */
export const fileServer: Profile = (at, random) => {
  if (weekdayOf(at) >= 5 || hourOf(at) < 7 || hourOf(at) >= 19) return fresh(within(random, 0, 2) * MiB, 0.1);
  const saved = random() ** 3 * 200 * MiB;
  return fresh(saved, within(random, 0.2, 0.6), random() * saved);
};

/** Images are pulled and unpacked, code is built; the same layers come again and again. */
export const ciRunner: Profile = (_at, random) => {
  if (random() < 0.6) return fresh(within(random, 0, 5) * MiB, 0.2);
  const pulled = random() ** 2 * 1500 * MiB;
  return fresh(pulled, within(random, 0.25, 0.5), pulled * within(random, 0.5, 3));
};

/** Recordings: nothing that compresses, and never the same amount. */
export const camera: Profile = (_at, random) => fresh(within(random, 50, 800) * MiB, within(random, 0.94, 1));

/** Compressed logs at midnight, on a machine that does nothing else. */
export const logHost: Profile = (at, random) => {
  const lines = fresh(within(random, 10, 40) * MiB, 0.02);
  const rotated = hourOf(at) === 0 && at % HOUR_MS < 15 * 60_000;
  return rotated ? plus(lines, fresh(within(random, 300, 700) * MiB, 0.98)) : lines;
};

/** Somebody at work, who downloads something now and then, up to a few GiB. */
export const desktop: Profile = (at, random) => {
  if (hourOf(at) < 8 || hourOf(at) >= 22) return NOTHING;
  const work = fresh(random() ** 2 * 60 * MiB, within(random, 0.05, 0.4), random() * 10 * MiB);
  // Once in three days, on average.
  if (random() > 1 / (3 * 14 * 12)) return work;
  return plus(work, fresh(100 * MiB * 2 ** within(random, 0, 5), 0.98));
};

/** Written once, and left alone. */
export const archive: Profile = (at, random) =>
  at < DAY_MS ? fresh(within(random, 200, 400) * MiB, 0.3) : random() < 0.01 ? fresh(MiB, 0.1) : NOTHING;

export const PROFILES = {
  webServer,
  database,
  fileServer,
  ciRunner,
  camera,
  logHost,
  desktop,
  archive,
} as const;

/** `other` on top of `profile` from `from` on, until `until`, both since the machine was made. */
export function during(profile: Profile, other: Profile, from: number, until = Infinity): Profile {
  return (at, random) =>
    at >= from && at < until ? plus(profile(at, random), other(at - from, random)) : profile(at, random);
}

/** Files or disks overwritten with what nobody can tell from random bytes, at so many bytes a second, so many bytes in all. */
export function encrypting(bytesPerSecond: number, bytes: number): Profile {
  const step = (bytesPerSecond * STEP_MS) / 1000;
  return (at) => {
    const done = (at / STEP_MS) * step;
    return done >= bytes ? NOTHING : fresh(Math.min(step, bytes - done), 0.995);
  };
}

export interface Lived {
  readonly history: History;
  /** Each time that it tripped, and after that not for a day without a jump. */
  readonly trips: readonly { readonly at: number; readonly jump: Jump }[];
  readonly isBlind: boolean;
}

/** Lets a machine live so long, and judges it every five minutes in which it may have tripped. */
export function live(profile: Profile, ms: number, random: () => number, rule: Rule): Lived {
  const recent: Bucket[] = [];
  let history = EMPTY;
  let rawBytes = 0;
  const trips: { at: number; jump: Jump }[] = [];
  let seenAt = -Infinity;
  let isBlind = false;
  for (let at = 0; at < ms; at += STEP_MS) {
    // What was written in five minutes is looked at when they are over.
    const now = MONDAY_MS + at + STEP_MS;
    const amounts = profile(at, random);
    if (amounts.writtenBytes > 0) recent.push(bucketOf(MONDAY_MS + at, amounts));
    rawBytes += amounts.rawBytes;
    // At the end of the hour, before its first buckets are too old.
    if (now % HOUR_MS === 0) history = rolledUp({ ...history, '5m': recent }, now);
    while (recent.length > 0 && recent[0]!.start < now - DAY_MS) rawBytes -= recent.shift()!.rawBytes;
    if (rawBytes < rule.floorBytes || amounts.writtenBytes === 0) continue;
    const { state, jump } = judge({ ...history, '5m': recent }, now, rule);
    isBlind = state === 'blind';
    if (jump === undefined) continue;
    if (now - seenAt >= DAY_MS) trips.push({ at: at + STEP_MS, jump });
    seenAt = now;
  }
  return { history, trips, isBlind };
}
